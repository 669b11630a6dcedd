"""The final choice among the last candidates of a search, by a second reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rollflow.checks import whole
from rollflow.defaults import DEFAULT_SHORTLIST
from rollflow.requests import Reward
from rollflow.rewards.base import RewardModel
from rollflow.rewards.checks import check_reward


@dataclass(frozen=True)
class FinalChoice:
    """Returns the one of the last candidates of a search that a second reward likes best.

        argmax_{x in L} r_2(x),    L the ``shortlist`` candidates with the highest r_1

    The candidates are the samples that the search has scored at the lowest noise level that it reached: the finished
    samples if it finishes and scores several, else the last children of all parents. A search overrates its best
    candidates by the errors of r_1, which r_2 does not share if it is of another network. It costs no NFE: with one
    candidate, such as that of a beam whose samples take NFE to finish, there is nothing to choose. Re-ranking by a
    second model, as with verifiers (Cobbe et al. 2021, arXiv 2110.14168).

    Args:
        reward: Second reward r_2; a relative one compares the candidates with each other.
        shortlist: Number of candidates that it is called for, >= 1.

    Cost: ``shortlist`` reward calls and decodes at most, once in a job.
    """

    reward: RewardModel
    shortlist: int = DEFAULT_SHORTLIST

    def __post_init__(self) -> None:
        check_reward("reward of a final choice", self.reward)
        object.__setattr__(self, "shortlist", whole("shortlist", self.shortlist, at_least=1))


class Shortlist(NamedTuple):
    """The best candidates of one population at the lowest noise level that it has scored, the best first.

    Args:
        x0: (n, ...) clean samples.
        reward: (n,) float64 rewards.
        noise_level: Linear noise level of the states that they were made from; 0 for finished samples.
    """

    x0: Float[Tensor, " n *state"]
    reward: Float64[Tensor, " n"]
    noise_level: float


def shortlisted(
    before: Shortlist | None, request: Reward, rewards: Float64[Tensor, " B"], most: int
) -> Shortlist | None:
    """Return the shortlist after samples were scored; of equals, the first scored stay.

    Samples that must not be chosen are left out.

    Args:
        before: Shortlist so far; None if nothing was scored.
        request: The samples.
        rewards: (B,) rewards of the samples.
        most: Number of samples to keep.
    """
    if before is not None and request.noise_level > before.noise_level:
        return before
    eligible = rewards > -torch.inf
    if not eligible.any():
        return before
    x0, reward = request.x0[eligible], rewards[eligible]
    if before is not None and request.noise_level == before.noise_level:
        x0, reward = torch.cat([before.x0, x0]), torch.cat([before.reward, reward])
    best = reward.argsort(descending=True, stable=True)[:most]
    return Shortlist(x0[best].clone(), reward[best].clone(), request.noise_level)
