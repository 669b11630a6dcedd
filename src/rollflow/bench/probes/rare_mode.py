"""A mixture whose rewarded mode is hard to hit, and its exact properties."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rollflow.engine import Task
from rollflow.extras import requiring
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward

REACH = 3.0
"""A sample hits a mode if every coordinate lies within this many standard deviations of the mode's centre."""


@dataclass(frozen=True, eq=False)
class RareMode:
    """A mixture with one rewarded mode: r(x0) = -|x0 - mu|^2, where mu is the centre of that mode.

    Args:
        mixture: Mixture of K modes in d dimensions.
        mode: Index of the rewarded mode.
    """

    mixture: GaussianMixture
    mode: int = 0

    @property
    def centre(self) -> Tensor:
        """Centre mu of the rewarded mode, of shape (d,)."""
        return self.mixture.means[self.mode]

    @property
    def std(self) -> Tensor:
        """Standard deviation of the rewarded mode, of shape ()."""
        return self.mixture.stds[self.mode]

    def task(self) -> Task:
        """Return the task with the mixture as its model, and the reward."""
        return Task(ToyModel({"rare": self.mixture}), "rare", ToyReward(self.centre))

    def hits(self, x0: Tensor) -> Tensor:
        """Return which samples (B, d) hit the rewarded mode, a bool of shape (B,)."""
        return ((x0 - self.centre).abs() < REACH * self.std).all(-1)

    def _squares(self) -> Tensor:
        """Return |mu_k - mu|^2, of shape (K,)."""
        return (self.mixture.means - self.centre).square().sum(-1)

    def expected_reward(self) -> Tensor:
        """Return the expected reward of an exact sample of each mode, (K,): -(|mu_k - mu|^2 + d s_k^2)."""
        return -(self._squares() + len(self.centre) * self.mixture.stds**2)

    def hit_probability(self) -> Tensor:
        """Return the probability that an exact sample of each mode hits the rewarded one, (K,).

        It is a product over coordinates.
        """
        apart, reach = self.centre - self.mixture.means, REACH * self.std
        upper, lower = ((apart + side) / self.mixture.stds[:, None] for side in (reach, -reach))
        inside: Tensor = torch.special.ndtr(upper) - torch.special.ndtr(lower)
        return inside.prod(-1)

    def best_of(self, n: int) -> float:
        """Return the expected reward of the best of n exact samples, -int P(-r > y)^n dy over y > 0, by Simpson's rule.

        With probability w_k, a sample is of mode k; -r is then s_k^2 times a noncentral chi-squared variable with d
        degrees of freedom and noncentrality |mu_k - mu|^2 / s_k^2.

        Raises:
            RollflowError: If scipy is not installed.
        """
        with requiring("the best of n exact samples", "bench"):
            from scipy.integrate import simpson
            from scipy.stats import ncx2
        d, squares = len(self.centre), self._squares().numpy()
        weights, stds = self.mixture.weights.numpy(), self.mixture.stds.numpy()
        root = np.linspace(0, math.sqrt(squares.max()) + 10 * math.sqrt(d) * stds.max(), 4_001)
        modes = zip(weights, stds, squares, strict=True)
        above = sum(w * ncx2.sf((root / s) ** 2, d, square / s**2) for w, s, square in modes)
        return -float(simpson(above**n * 2 * root, x=root))

    def signal(self, t: float, draws: int = 20_000, seed: int = 0) -> float:
        """Return the probability that r(E[x0 | x_t]) is higher for an x_t of the rewarded mode than for one of another.

        Ties count as one half. This is the area under the ROC curve of the clean estimate's reward: 0.5 means no
        signal, 1 a perfect one. Both kinds of x_t are drawn exactly, as any sampler with the flow's marginals does.

        Args:
            t: Noise level.
            draws: Number of draws of each kind.
            seed: Seed of the draws.
        """
        mixture, generator = self.mixture, torch.Generator().manual_seed(seed)
        rewarded = torch.zeros_like(mixture.weights)
        rewarded[self.mode] = 1
        rewards = []
        for weights in (rewarded, mixture.weights * (1 - rewarded)):
            x0 = replace(mixture, weights=weights).sample(draws, generator)
            noise = torch.randn(x0.shape, dtype=x0.dtype, generator=generator)
            x = mixture.interpolant.alpha(t) * x0 + mixture.interpolant.sigma(t) * noise
            rewards.append(-(mixture.denoised(x, t) - self.centre).square().sum(-1))
        here, there = rewards[0], rewards[1].sort().values
        lower = torch.searchsorted(there, here) + torch.searchsorted(there, here, right=True)
        return float(lower.double().mean()) / (2 * draws)


def rare_mode() -> RareMode:
    """Return a mixture in eight dimensions of five modes on separate axes, the rewarded one of weight 2 %."""
    weights = torch.tensor([0.02, 0.38, 0.30, 0.20, 0.10])
    return RareMode(GaussianMixture(weights, torch.eye(5, 8), torch.full((5,), 0.1)))
