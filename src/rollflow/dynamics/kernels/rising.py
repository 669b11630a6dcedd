"""Diffusion coefficients that rise from 0 at the data to their scale at the noise, and a bound on any coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rollflow.checks import real
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.kernels.base import DiffusionCoefficient
from rollflow.dynamics.shapes import Times


@dataclass(frozen=True)
class Sine(DiffusionCoefficient):
    """g_t = scale sin(pi t / 2), which rises steeply near the data and levels off towards the noise.

    A coefficient of this kind is among those that Kim et al. 2025, arXiv 2503.19385, made available. The paper does not
    give its form, which is ours: 0 at t = 0, and scale at t = 1.

    Args:
        scale: Value at t = 1, >= 0.
    """

    scale: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of Sine", self.scale, at_least=0)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return self.scale * torch.sin(math.pi / 2 * t)


@dataclass(frozen=True)
class Exponential(DiffusionCoefficient):
    """g_t = scale (exp(rate t) - 1) / (exp(rate) - 1), between a straight line and a step at the noise.

    As `Sine`: made available with arXiv 2503.19385, in a form that is ours.

    Args:
        scale: Value at t = 1, >= 0.
        rate: Rate of the rise, in (0, 100]; towards 0 the coefficient is scale t.
    """

    scale: float = 3.0
    rate: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of Exponential", self.scale, at_least=0)
        real("rate of Exponential", self.rate, above=0, at_most=100)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return self.scale * torch.expm1(self.rate * t) / math.expm1(self.rate)


@dataclass(frozen=True)
class Tangent(DiffusionCoefficient):
    """g_t = scale tan(pi t / 4), which rises a little more slowly near the data than near the noise.

    As `Sine`: made available with arXiv 2503.19385, in a form that is ours.

    Args:
        scale: Value at t = 1, >= 0.
    """

    scale: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of Tangent", self.scale, at_least=0)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return self.scale * torch.tan(math.pi / 4 * t)


@dataclass(frozen=True)
class Clipped(DiffusionCoefficient):
    """g_t = min(inner g_t, most): another coefficient with an upper bound.

    As `Sine`: made available with arXiv 2503.19385, in a form that is ours. A bound keeps g^2 / 2 times a long first
    step below 1.

    Args:
        inner: The other coefficient.
        most: Upper bound, >= 0.
    """

    inner: DiffusionCoefficient = Tangent()
    most: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("most of Clipped", self.most, at_least=0)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return self.inner.g(interpolant, t).clamp(max=self.most)
