"""Weights by which the noises of a step are combined into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import Settings, real
from rollflow.registry import Registry

SAME = 1e-8
"""Standard deviation of the rewards below which they count as equal, as in the authors' release."""


@dataclass(frozen=True)
class NoiseWeights(Settings, ABC):
    """A rule that turns the rewards of a step's children into weights of their noises.

    Noises whose reward is -inf have weight 0 and no part in means. If the others' rewards are equal, or there is only
    one, their weights are 1.

    Args:
        temperature: Temperature a > 0, in units of the reward; None is the standard deviation of the rewards.

    Attributes:
        name: Name on the command line.
    """

    temperature: float | None = None
    name: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is not None:
            real(f"temperature of {self.name}", self.temperature, above=0)

    def __call__(self, reward: Float64[Tensor, " K"]) -> Float64[Tensor, " K"]:
        """Return the weights of noises with these rewards."""
        alive = reward.isfinite()
        known = reward[alive]
        spread = float(known.std()) if len(known) > 1 else 0.0
        weights = torch.zeros_like(reward)
        same = torch.ones_like(known)
        weights[alive] = same if spread < SAME else self.weigh(known, self.temperature or spread)
        return weights

    @abstractmethod
    def weigh(self, reward: Float64[Tensor, " K"], temperature: float) -> Float64[Tensor, " K"]:
        """Return the weights of noises with finite rewards that are not all equal."""


@dataclass(frozen=True)
class TanhWeights(NoiseWeights):
    """w_j = tanh((r_j - mean r) / a): towards noises that did well, and as much away from those that did badly.

    Yeh, Lee & Chen 2025, arXiv 2410.05760.

    Args:
        temperature: Temperature a > 0, in units of the reward; None is the standard deviation of the rewards.
    """

    name = "tanh"

    def weigh(self, reward: Float64[Tensor, " K"], temperature: float) -> Float64[Tensor, " K"]:
        return torch.tanh((reward - reward.mean()) / temperature)


@dataclass(frozen=True)
class BoltzmannWeights(NoiseWeights):
    """w_j = softmax_j(r / a): towards noises that did well (Yeh, Lee & Chen 2025, arXiv 2410.05760).

    Args:
        temperature: Temperature a > 0, in units of the reward; None is the standard deviation of the rewards.
    """

    name = "boltzmann"

    def weigh(self, reward: Float64[Tensor, " K"], temperature: float) -> Float64[Tensor, " K"]:
        return torch.softmax(reward / temperature, 0)


NOISE_WEIGHTS: Registry[NoiseWeights] = Registry(
    "noise weights", NoiseWeights, {weights.name: weights for weights in (TanhWeights, BoltzmannWeights)}
)
"""Every rule for weights of noises, by its name on the command line."""
