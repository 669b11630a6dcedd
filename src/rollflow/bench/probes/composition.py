"""The compositional toy: many groups that all have to come right, and its exact properties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rollflow.checks import Settings, real, whole
from rollflow.engine import Task
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.product import ProductModel, simplex
from rollflow.rewards.composition import GroupLikelihood, WrongGroups, squared_distances


@dataclass(frozen=True)
class Composition(Settings):
    """Independent groups, each a mixture of modes of which one is wanted, as a prompt asks for several things at once.

        x_g ~ w N(mu_1, s^2 I) + sum_{k > 1} (1 - w) / (K - 1) N(mu_k, s^2 I),    g = 1..G

    with mu_k the vertices of a regular simplex on the unit sphere, so that no mode is special but by its weight. A
    group is right if its nearest mode is the first, and a sample if all its groups are. An exact sample is so rarely
    that no choice among samples finds one, while a search can choose each group by itself at the step that decides it.

    Args:
        groups: Number G of groups.
        modes: Number K of modes, at least 2 and at most d + 1.
        dimension: Dimension d of a group.
        std: Standard deviation s > 0 of a mode.
        weight: Weight w of the mode that is wanted, between 0 and 1.
        width: Width of the smooth reward (``GroupLikelihood``).
    """

    groups: int = 8
    modes: int = 4
    dimension: int = 3
    std: float = 0.1
    weight: float = 0.3
    width: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("groups of a composition", self.groups, at_least=1)
        real("std of a composition", self.std, above=0)
        real("weight of a composition", self.weight, above=0, below=1)
        real("width of a composition", self.width, above=0)
        simplex(self.modes, self.dimension)

    @cached_property
    def mixture(self) -> GaussianMixture:
        """Law of one group."""
        others = torch.full((self.modes,), (1 - self.weight) / (self.modes - 1), dtype=torch.float64)
        others[0] = self.weight
        means = simplex(self.modes, self.dimension)
        return GaussianMixture(others, means, torch.full((self.modes,), self.std, dtype=torch.float64))

    def task(self, *, smooth: bool) -> Task:
        """Return the task with the smooth or the plateaued reward."""
        means = self.mixture.means
        reward = GroupLikelihood(means, self.width) if smooth else WrongGroups(means)
        return Task(ProductModel(self.mixture, self.groups), "every group", reward)

    def group_reward(self, *, smooth: bool) -> float:
        """Return how much higher the reward is with one more group at the centre of the right mode."""
        return self._apart**2 / (2 * self.width**2) if smooth else 1.0

    def right_groups(self, x0: Tensor) -> Tensor:
        """Return which groups of samples (B, G, d) are right, a bool of shape (B, G)."""
        return squared_distances(x0, self.mixture.means).argmin(-1) == 0

    def right(self, x0: Tensor) -> Tensor:
        """Return which samples (B, G, d) have every group right, a bool of shape (B,)."""
        return self.right_groups(x0).all(-1)

    @property
    def _apart(self) -> float:
        """Distance between two centres."""
        return math.sqrt(2 * self.modes / (self.modes - 1))

    @cached_property
    def group_probability(self) -> float:
        """Probability that a group of an exact sample is right.

            w c + (1 - w) (1 - c) / (K - 1),    c = int phi(v) Phi(D / (sqrt(2) s) - v)^(K - 1) dv

        with D the distance between two centres and c the probability that the nearest mode of a draw is its own: the
        projections of a draw on the directions to the K - 1 other centres are normal with correlation 1/2. It is w
        wherever the modes do not overlap.
        """
        step = 0.01
        v = torch.arange(-12, 12 + step / 2, step, dtype=torch.float64)
        below = torch.special.ndtr(self._apart / (math.sqrt(2) * self.std) - v) ** (self.modes - 1)
        own = float((torch.exp(-v.square() / 2) * below).sum()) * step / math.sqrt(2 * math.pi)
        return self.weight * own + (1 - self.weight) * (1 - own) / (self.modes - 1)

    def right_in_best_of(self, n: int, group: float | None = None) -> float:
        """Return the probability that any of n independent samples has every group right: 1 - (1 - p^G)^n.

        Args:
            n: Number of samples.
            group: Probability p that one of their groups is right; None is that of an exact sample.
        """
        p = self.group_probability if group is None else group
        return -math.expm1(n * math.log1p(-(p**self.groups)))

    def fewest_wrong(self, n: int) -> float:
        """Return the expected number of wrong groups in the best of n exact samples.

        sum_{j < G} P(W > j)^n,    W ~ Binomial(G, 1 - p)
        """
        p, g = self.group_probability, self.groups
        law = np.array([math.comb(g, j) * (1 - p) ** j * p ** (g - j) for j in range(g + 1)])
        more = law[::-1].cumsum()[::-1][1:]  # P(W > j), j = 0..G - 1
        return float((more**n).sum())

    def expected_likelihood(self, nodes: int = 32) -> float:
        """Return the expected smooth reward of an exact sample, by Gauss-Hermite quadrature in K - 1 dimensions."""
        at, weights = np.polynomial.hermite_e.hermegauss(nodes)
        used = self.modes - 1  # the coordinates that the centres lie in
        draws = torch.cartesian_prod(*[torch.from_numpy(at)] * used).view(-1, used)
        log_weights = torch.from_numpy(np.log(weights / weights.sum()))
        probability = torch.cartesian_prod(*[log_weights] * used).view(-1, used).sum(-1).exp()
        means = self.mixture.means[:, :used]
        reward = GroupLikelihood(means, self.width)
        by_mode = [probability @ reward.score((mean + self.std * draws)[:, None], ()) for mean in means]
        return self.groups * float(self.mixture.weights @ torch.stack(by_mode))


def compositional_toy() -> Composition:
    """Return eight groups in three dimensions of four modes each, the wanted one of weight 30 %."""
    return Composition()
