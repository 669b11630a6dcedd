"""Guidance: which way a particle's children should lean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rollflow.conversions import broadcast_like
from rollflow.errors import RollflowError, unknown
from rollflow.registry import Registry


class Guidance(ABC):
    """A displacement of the children of a state, from the gradient of the reward of its clean estimate.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def shift(self, gradient: Tensor, reward: Tensor) -> Tensor:
        """What is added to every child of a state.

        Args:
            gradient: (B, ...) grad_{x_t} r(x0(x_t)), in the sampler's interpolant.
            reward: (B,) float64 r(x0(x_t)).

        Returns:
            (B, ...), of the dtype of ``gradient``.
        """


def _constant(gradient: Tensor, reward: Tensor) -> Tensor:
    return torch.ones_like(reward)


def _inverse(size: Tensor) -> Tensor:
    """1 / size, and 0 where there is nothing to follow."""
    return torch.where(size == 0, 0.0, 1 / size)


def _per_reward(gradient: Tensor, reward: Tensor) -> Tensor:
    return _inverse(reward.abs())


def _per_gradient(gradient: Tensor, reward: Tensor) -> Tensor:
    return _inverse(gradient.double().flatten(1).norm(dim=1))


STEP_SIZES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "constant": _constant,
    "reward": _per_reward,
    "gradient": _per_gradient,
}


@dataclass(frozen=True)
class DPS(Guidance):
    """Diffusion posterior sampling: children lean along the gradient of the reward, taken through the clean estimate.

        x_s <- x_s + rho grad_{x_t} r(x0(x_t)),    x0(x_t) = E[x0 | x_t]

    Chung et al. 2023, arXiv 2209.14687, algorithm 1, with a reward in place of minus the squared residual and any
    kernel in place of DDPM's; as arXiv 2503.19385 runs it. The gradient is that of the posterior mean whatever the
    look-ahead. It is taken once for a parent, and all its children lean by it.

    Args:
        scale: >= 0, in units of the rule.
        step_size: rho is ``scale`` ("constant"), scale / |r| ("reward", their choice, whose residual's norm is the root
            of -r), or scale / |gradient| ("gradient": every shift has the Euclidean length ``scale``).

    Cost: for every parent 1 NFE, 1 decode, 1 reward call and 1 backward pass; where every evaluated particle becomes a
    parent (best of N, SMC), the evaluation itself is the one differentiated and only the backward pass comes on top.
    """

    scale: float = 1.0
    step_size: str = "gradient"
    name = "dps"

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise RollflowError(f"dps needs scale >= 0, not {self.scale}")
        if self.step_size not in STEP_SIZES:
            raise unknown("step size", self.step_size, STEP_SIZES)

    def shift(self, gradient: Tensor, reward: Tensor) -> Tensor:
        rho = self.scale * STEP_SIZES[self.step_size](gradient, reward)
        return broadcast_like(rho, gradient) * gradient


GUIDANCE: Registry[Guidance] = Registry("guidance", Guidance, {"dps": DPS})
"""Every guidance, by its name on the command line."""
