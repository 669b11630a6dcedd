"""Potentials: what a sequential Monte Carlo search aims at on its way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rollflow.checks import Settings
from rollflow.registry import Registry


class Memory(NamedTuple):
    """What a potential knows of the path of each particle, in units of reward.

    Args:
        value: (B,) float64 phi_k, what the path is worth so far.
        summary: (B,) float64 what else of the earlier rewards its next value needs.
    """

    value: Tensor
    summary: Tensor

    def rows(self, index: Tensor) -> Memory:
        """The paths of the particles at ``index``."""
        return Memory(self.value[index], self.summary[index])


class Potential(Settings, ABC):
    """The logarithm phi_k of an intermediate target, from the rewards r_0 ... r_k of a path's clean estimates.

    The weights are exp((phi_k - phi_{k-1}) / temperature), with phi_{-1} = 0; whoever weighs replaces the last phi by
    the final reward itself, so that their product along any path is exp(r(x0) / temperature), whatever the potential.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def update(self, memory: Memory | None, reward: Tensor) -> Memory:
        """The memory of phi_k, from that of phi_{k-1} (None at first) and r_k (B,) float64.

        Where r_k is -inf, the particle has weight 0 whatever is returned for it.
        """


@dataclass(frozen=True)
class DifferencePotential(Potential):
    """phi_k = r_k: a particle is weighed by what it gained (Singhal et al. 2025, arXiv 2501.06848)."""

    name = "difference"

    def update(self, memory: Memory | None, reward: Tensor) -> Memory:
        return Memory(reward, reward)


@dataclass(frozen=True)
class MaxPotential(Potential):
    """phi_k = phi_{k-1} + max_{j <= k} r_j: favours paths that were good once (arXiv 2501.06848).

    After k steps it is some k times a reward, and intermediate targets are as many times sharper than the last one: for
    few steps, or high temperatures.
    """

    name = "max"

    def update(self, memory: Memory | None, reward: Tensor) -> Memory:
        if memory is None:
            return Memory(reward, reward)
        highest = torch.maximum(memory.summary, reward)
        return Memory(memory.value + highest, highest)


@dataclass(frozen=True)
class SumPotential(Potential):
    """phi_k = phi_{k-1} + sum_{j <= k} r_j: favours paths that were good all along (arXiv 2501.06848).

    It grows with the square of the number of steps, where ``MaxPotential`` grows with the number.
    """

    name = "sum"

    def update(self, memory: Memory | None, reward: Tensor) -> Memory:
        if memory is None:
            return Memory(reward, reward)
        total = memory.summary + reward
        return Memory(memory.value + total, total)


POTENTIALS: Registry[Potential] = Registry(
    "potential", Potential, {kind.name: kind for kind in (DifferencePotential, MaxPotential, SumPotential)}
)
"""Every potential, by its name on the command line."""
