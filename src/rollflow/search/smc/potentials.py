"""Potentials: the intermediate targets of a sequential Monte Carlo search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rollflow.checks import Settings
from rollflow.registry import Registry


class Memory(NamedTuple):
    """What a potential remembers of the path of each particle, in units of the reward.

    Args:
        value: (B,) float64 potentials phi_k of the paths so far.
        summary: (B,) float64 summaries of the earlier rewards that the next potential needs.
    """

    value: Float64[Tensor, " B"]
    summary: Float64[Tensor, " B"]

    def rows(self, index: Int64[Tensor, " N"]) -> Memory:
        """Return the memory of the particles at ``index``."""
        return Memory(self.value[index], self.summary[index])


class Potential(Settings, ABC):
    """The logarithm phi_k of an intermediate target, from the rewards r_0 ... r_k of a path's clean estimates.

    The weights are exp((phi_k - phi_{k-1}) / temperature), with phi_{-1} = 0. The last phi is replaced by the final
    reward itself, so that for every potential the weights of any path multiply to exp(r(x0) / temperature).

    Attributes:
        name: Name on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def update(self, memory: Memory | None, reward: Float64[Tensor, " B"]) -> Memory:
        """Return the memory of phi_k from that of phi_{k-1} (None at first) and the rewards r_k, (B,) float64.

        A particle with r_k = -inf has weight 0, and what is returned for it is ignored.
        """


@dataclass(frozen=True)
class DifferencePotential(Potential):
    """phi_k = r_k: particles are weighted by what they gained (Singhal et al. 2025, arXiv 2501.06848)."""

    name = "difference"

    def update(self, memory: Memory | None, reward: Float64[Tensor, " B"]) -> Memory:
        return Memory(reward, reward)


@dataclass(frozen=True)
class MaxPotential(Potential):
    """phi_k = phi_{k-1} + max_{j <= k} r_j: favours paths that were good once (arXiv 2501.06848).

    After k steps it is about k times a reward, so that intermediate targets are k times as sharp as the last one: use
    it with few steps or high temperatures.
    """

    name = "max"

    def update(self, memory: Memory | None, reward: Float64[Tensor, " B"]) -> Memory:
        if memory is None:
            return Memory(reward, reward)
        highest = torch.maximum(memory.summary, reward)
        return Memory(memory.value + highest, highest)


@dataclass(frozen=True)
class SumPotential(Potential):
    """phi_k = phi_{k-1} + sum_{j <= k} r_j: favours paths that were good all along (arXiv 2501.06848).

    It grows with the square of the number of steps, whereas ``MaxPotential`` grows with the number.
    """

    name = "sum"

    def update(self, memory: Memory | None, reward: Float64[Tensor, " B"]) -> Memory:
        if memory is None:
            return Memory(reward, reward)
        total = memory.summary + reward
        return Memory(memory.value + total, total)


POTENTIALS: Registry[Potential] = Registry(
    "potential", Potential, {kind.name: kind for kind in (DifferencePotential, MaxPotential, SumPotential)}
)
"""Every potential, by its name on the command line."""
