"""Guidance: displacement of children along the gradient of the reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import Settings, one_of, real
from rollflow.dynamics.conversions import broadcast_like
from rollflow.dynamics.shapes import States
from rollflow.registry import Registry


class Guidance(Settings, ABC):
    """A displacement of the children of a state, from the gradient of the reward of its clean estimate.

    Attributes:
        name: Name on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def shift(self, gradient: States, reward: Float64[Tensor, " B"]) -> States:
        """Return the displacement of every child of each state.

        Args:
            gradient: (B, ...) gradients grad_{x_t} r(x0(x_t)), along the sampler's interpolant.
            reward: (B,) float64 rewards r(x0(x_t)).

        Returns:
            (B, ...) displacements, of the dtype of ``gradient``.
        """


def _one(gradient: States, reward: Float64[Tensor, " B"]) -> Float64[Tensor, " B"]:
    return torch.ones_like(reward)


def _size_of_reward(gradient: States, reward: Float64[Tensor, " B"]) -> Float64[Tensor, " B"]:
    return reward.abs()


def _size_of_gradient(gradient: States, reward: Float64[Tensor, " B"]) -> Float64[Tensor, " B"]:
    size: Float64[Tensor, " B"] = gradient.flatten(1).norm(dim=1)
    return size


STEP_SIZES: dict[str, Callable[[States, Tensor], Tensor]] = {
    "constant": _one,
    "reward": _size_of_reward,
    "gradient": _size_of_gradient,
}
"""By name, the rule that gives the divisor of each gradient, (B,), from gradient and reward in float64."""


@dataclass(frozen=True)
class DPS(Guidance):
    """Diffusion posterior sampling: shift children along the gradient of the reward of the clean estimate.

        x_s <- x_s + rho grad_{x_t} r(x0(x_t)),    x0(x_t) = E[x0 | x_t]

    Chung et al. 2023, arXiv 2209.14687, algorithm 1, with a reward instead of minus the squared residual and any kernel
    instead of DDPM's; Kim et al. 2025, arXiv 2503.19385, run it alone, in SVDD and in RBF. The gradient is taken
    through the posterior mean for every look-ahead, once for each parent, and shifts all of its children.
    Deviation: finishing is not guided.

    Euler-Maruyama for the law tilted by exp(r) is this step with rho = (g^2 + m^2) / 2 (t - s), m the coefficient of
    ``Memoryless`` (linear: m^2 / 2 = t / (1 - t)), and log E[exp(r(x0)) | x_t] in place of r(x0(x_t)). Replacing the
    one by the other neglects the spread of x0 given x_t, so that even this rho can shift too far and narrow the law.
    The rules below know neither t nor s and shift anew at every step: lower ``scale`` as the number of steps grows.

    Args:
        scale: Scale of the shift, >= 0 and finite, in units of the rule.
        step_size: Rule for rho: ``scale`` ("constant"); scale / |r| ("reward", which follows the gradient of log r
            where r > 0; the authors divide by the residual's norm, the root of -r); or scale / |gradient| ("gradient",
            with which every shift has the Euclidean length ``scale``, even where the gradient is mostly rounding error,
            as at pure noise). The shift is 0 where the divisor is 0.

    Cost: 1 NFE, 1 decode, 1 reward call and 1 backward pass for every parent. If every evaluated particle becomes a
    parent (best of N, SMC), the evaluation itself is differentiated, which saves the NFE, and also the decode and the
    reward call if its posterior mean was to be scored anyway.
    """

    scale: float = 1.0
    step_size: str = "gradient"
    name = "dps"

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of dps", self.scale, at_least=0)
        one_of("step size", self.step_size, STEP_SIZES)

    def shift(self, gradient: States, reward: Float64[Tensor, " B"]) -> States:
        wide = gradient.double()  # rewards and gradients may be smaller than a float32 can divide by
        size = broadcast_like(STEP_SIZES[self.step_size](wide, reward), wide)
        return torch.where(size == 0, 0.0, self.scale * wide / size).to(gradient)


GUIDANCE: Registry[Guidance] = Registry("guidance", Guidance, {"dps": DPS})
"""Every guidance, by its name on the command line."""
