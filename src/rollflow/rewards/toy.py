"""The reward of the Gaussian mixture models."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from rollflow.rewards.base import RewardModel


class ToyReward(RewardModel):
    """The negative squared distance to a target point, or the sample's first coordinate if there is no target.

    Args:
        target: Target point (d,), or None.
    """

    name = "toy"
    description = "minus the squared distance to a point"
    differentiable = True

    def __init__(self, target: Tensor | None = None) -> None:
        self.target = target
        self.bounds = (-math.inf, math.inf if target is None else 0.0)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.target is None:
            return samples[:, 0]
        return -(samples - self.target).square().sum(-1)
