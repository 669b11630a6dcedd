"""The rewards of a product of mixtures: how many of its groups are in the mode that is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rollflow.checks import real
from rollflow.rewards.base import RewardModel


def squared_distances(samples: Tensor, means: Tensor) -> Tensor:
    """Return the squared distances (B, G, K) of groups (B, G, d) from the centres (K, d) of modes."""
    return (samples[:, :, None] - means.to(samples)).square().sum(-1)


class WrongGroups(RewardModel):
    """Minus the number of groups whose nearest mode is not the first: a plateau for each number.

    Args:
        means: Centres of the modes, (K, d); the first is wanted.
    """

    name = "wrong-groups"
    description = "minus the number of groups in a wrong mode"
    zero_is_perfect = True
    batch_size = 1 << 14

    def __init__(self, means: Tensor) -> None:
        self.means = means
        self.bounds = (-math.inf, 0.0)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return -(squared_distances(samples, self.means).argmin(-1) != 0).sum(-1).double()


class GroupLikelihood(RewardModel):
    r"""The sum over groups of the log-probability that a soft classifier gives to the first mode.

        r(x) = sum_g log softmax_k(-|x_g - mu_k|^2 / (2 width^2))_1

    Args:
        means: Centres mu of the modes, (K, d); the first is wanted.
        width: Standard deviation > 0 of the classifier's noise: the larger, the smoother the reward.
    """

    name = "group-likelihood"
    description = "log-probability of the wanted mode, summed over groups"
    differentiable = True
    batch_size = 1 << 14

    def __init__(self, means: Tensor, width: float) -> None:
        self.means = means
        self.width = real("width of group-likelihood", width, above=0)
        self.bounds = (-math.inf, 0.0)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        logits = -squared_distances(samples, self.means) / (2 * self.width**2)
        return torch.log_softmax(logits, -1)[..., 0].sum(-1)
