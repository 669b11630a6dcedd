"""Tempering: how much a sequential Monte Carlo search trusts its potentials on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import Settings, real
from rollflow.particles.weights import ess
from rollflow.registry import Registry


class Tempering(Settings, ABC):
    """Factors gamma_k in [0, 1] that flatten intermediate targets: gamma_k phi_k in place of phi_k.

    Clean estimates of early states say little about the sample; gamma_k, which never falls, is how much they count. The
    last gamma is 1 for every tempering.

    Attributes:
        name: Name on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def gamma(
        self, step: int, steps: int, previous: float, log_w: Float64[Tensor, " B"], phi: Float64[Tensor, " B"]
    ) -> float:
        """Return gamma_k for weighting number ``step`` = k, which is not the last.

        Args:
            step: Number of the weighting, from 0 to steps - 2.
            steps: Number of weightings, >= 2.
            previous: gamma_{k-1}; 0 at first.
            log_w: (B,) float64 log-weights without any potential, of the particles with a weight above 0; with gamma
                they are log_w + gamma phi.
            phi: (B,) float64 potentials phi_k / temperature of the same particles.
        """


@dataclass(frozen=True)
class NoTempering(Tempering):
    """gamma_k = 1."""

    name = "none"

    def gamma(
        self, step: int, steps: int, previous: float, log_w: Float64[Tensor, " B"], phi: Float64[Tensor, " B"]
    ) -> float:
        return 1.0


@dataclass(frozen=True)
class LinearTempering(Tempering):
    """gamma_k = (k + 1) / steps."""

    name = "linear"

    def gamma(
        self, step: int, steps: int, previous: float, log_w: Float64[Tensor, " B"], phi: Float64[Tensor, " B"]
    ) -> float:
        return (step + 1) / steps


@dataclass(frozen=True)
class GeometricTempering(Tempering):
    """gamma_k = min(1, (1 + rate)^(k + 1) - 1) (DAS: Kim, Kim & Park 2025, arXiv 2501.05803).

    Args:
        rate: Growth per step, > 0 (the paper: 0.008 for 100 steps); None is 2^(1 / steps) - 1, with which gamma reaches
            1 just at the end.
    """

    rate: float | None = None
    name = "geometric"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate is not None:
            real("rate of geometric tempering", self.rate, above=0)

    def gamma(
        self, step: int, steps: int, previous: float, log_w: Float64[Tensor, " B"], phi: Float64[Tensor, " B"]
    ) -> float:
        growth = 2 ** (1 / steps) if self.rate is None else 1 + self.rate
        return float(min(1.0, growth ** (step + 1) - 1))


@dataclass(frozen=True)
class AdaptiveTempering(Tempering):
    """The largest gamma_k in [gamma_{k-1}, 1] that keeps ESS >= c K, by bisection.

    Jasra, Stephens, Doucet & Tsagaris 2011; arXiv 2501.05803. Weights carried from earlier steps
    count, and gamma stays as it is if they alone are too uneven. Z-hat is unbiased all the same: the kernels do not
    depend on gamma, and every gamma_k phi_k that enters the weights is taken out again.

    Args:
        keep: Share c of the particles that the effective sample size must keep, in (0, 1).
    """

    keep: float = 0.5
    name = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        real("keep of adaptive tempering", self.keep, above=0, below=1)

    def gamma(
        self, step: int, steps: int, previous: float, log_w: Float64[Tensor, " B"], phi: Float64[Tensor, " B"]
    ) -> float:
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
