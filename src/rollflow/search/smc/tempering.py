"""Tempering: how far a sequential Monte Carlo search believes its potentials on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rollflow.checks import Settings, real
from rollflow.particles.weights import ess
from rollflow.registry import Registry


class Tempering(Settings, ABC):
    """gamma_k in [0, 1], never falling, by which intermediate targets are flattened: gamma_k phi_k in place of phi_k.

    Clean estimates of early states say little of the sample, and gamma_k how far they are believed. The last gamma is 1
    whatever the tempering.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def gamma(self, step: int, steps: int, previous: float, log_w: Tensor, phi: Tensor) -> float:
        """gamma_k at weighting number ``step`` = k of ``steps``, before the last.

        Args:
            step: From 0 to steps - 2.
            steps: >= 2.
            previous: gamma_{k-1}; 0 at first.
            log_w: (B,) log-weights without any potential, so that gamma makes them log_w + gamma phi; of those
                particles whose weight is above 0.
            phi: (B,) phi_k / temperature of the same.
        """


@dataclass(frozen=True)
class NoTempering(Tempering):
    """gamma_k = 1."""

    name = "none"

    def gamma(self, step: int, steps: int, previous: float, log_w: Tensor, phi: Tensor) -> float:
        return 1.0


@dataclass(frozen=True)
class LinearTempering(Tempering):
    """gamma_k = (k + 1) / steps."""

    name = "linear"

    def gamma(self, step: int, steps: int, previous: float, log_w: Tensor, phi: Tensor) -> float:
        return (step + 1) / steps


@dataclass(frozen=True)
class GeometricTempering(Tempering):
    """gamma_k = min(1, (1 + rate)^(k + 1) - 1) (DAS: Kim, Kim & Park 2025, arXiv 2501.05803).

    Args:
        rate: > 0, theirs 0.008 for 100 steps; None is 2^(1 / steps) - 1, with which gamma gets to 1 just at the end.
    """

    rate: float | None = None
    name = "geometric"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate is not None:
            real("rate of geometric tempering", self.rate, above=0)

    def gamma(self, step: int, steps: int, previous: float, log_w: Tensor, phi: Tensor) -> float:
        growth = 2 ** (1 / steps) if self.rate is None else 1 + self.rate
        return float(min(1.0, growth ** (step + 1) - 1))


@dataclass(frozen=True)
class AdaptiveTempering(Tempering):
    """The largest gamma_k in [gamma_{k-1}, 1] that keeps ESS >= c K, by bisection.

    Jasra, Stephens, Doucet & Tsagaris 2011; arXiv 2501.05803. The weights carried so far count, and where they alone
    are too uneven gamma stays. Z-hat is unbiased all the same, as the kernels do not depend on gamma, and every
    gamma_k phi_k that is put in is taken out again.

    Args:
        keep: c, in (0, 1).
    """

    keep: float = 0.5
    name = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        real("keep of adaptive tempering", self.keep, above=0, below=1)

    def gamma(self, step: int, steps: int, previous: float, log_w: Tensor, phi: Tensor) -> float:
        def enough(gamma: float) -> bool:
            return ess(log_w + gamma * phi) >= self.keep * len(log_w)

        low, high = previous, 1.0
        if enough(high):
            return high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if enough(middle) else (low, middle)
        return low


TEMPERINGS: Registry[Tempering] = Registry(
    "tempering",
    Tempering,
    {kind.name: kind for kind in (NoTempering, LinearTempering, GeometricTempering, AdaptiveTempering)},
)
"""Every tempering, by its name on the command line."""
