"""The reverse SDE and its diffusion coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import real
from rollflow.dynamics.conversions import Conversion, as_float, broadcast_like, score_from_velocity
from rollflow.dynamics.interpolants import VP, Interpolant
from rollflow.dynamics.kernels.base import DiffusionCoefficient, GaussianKernel, Moments
from rollflow.dynamics.kernels.rising import Clipped, Exponential, Sine, Tangent
from rollflow.dynamics.shapes import States, Times
from rollflow.errors import BadSetting
from rollflow.registry import Registry


@dataclass(frozen=True)
class Power(DiffusionCoefficient):
    """g_t = scale t^exponent; 3 t^2 in Kim et al. 2025, arXiv 2503.19385.

    Args:
        scale: Factor, >= 0.
        exponent: Exponent, >= 0.
    """

    scale: float = 3.0
    exponent: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of Power", self.scale, at_least=0)
        real("exponent of Power", self.exponent, at_least=0)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return self.scale * t**self.exponent


@dataclass(frozen=True)
class Constant(DiffusionCoefficient):
    """g_t = value, which adds noise until the end and so needs small last steps.

    Args:
        value: The coefficient, >= 0.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("value of Constant", self.value, at_least=0)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return torch.full_like(t, self.value)


@dataclass(frozen=True)
class Sigma(DiffusionCoefficient):
    """g_t = scale sigma_t.

    Args:
        scale: Factor, >= 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of Sigma", self.scale, at_least=0)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        return self.scale * interpolant.sigma(t)


@dataclass(frozen=True)
class Memoryless(DiffusionCoefficient):
    """g_t = scale sqrt(2 (sigma sigma_dot - sigma^2 alpha_dot / alpha)), taken at min(t, latest).

    With scale = 1 the SDE is the exact reversal of the forward noising process, which forgets x0
    (Domingo-Enrich et al., 2024, arXiv 2409.08861): sqrt(2 t / (1 - t)) for `Linear`, the root of the noising
    rate for `VP`. With scale = sqrt(1/2) it is sqrt(t / (1 - t)) for `Linear` (Flow-GRPO, Liu et al., 2025,
    arXiv 2505.05470, whose factor is 0.7).

    Args:
        scale: Factor, >= 0.
        latest: Time in (0, 1] at which g stops growing, since it is infinite where alpha = 0. Any value is correct;
            g^2 / 2 times the first step should stay near or below 1.
    """

    scale: float = 1.0
    latest: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        real("scale of Memoryless", self.scale, at_least=0)
        real("latest of Memoryless", self.latest, above=0, at_most=1)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        t = t.clamp(max=self.latest)
        decay = interpolant.sigma(t) ** 2 * interpolant.alpha_dot(t) / interpolant.alpha(t)
        return self.scale * torch.sqrt(2 * (interpolant.sigma_sigma_dot(t) - decay))


@dataclass(frozen=True)
class Converted(DiffusionCoefficient):
    """Diffusion coefficient of another interpolant's SDE, in the coordinates of the one that is sampled.

        g_t = g_bar_s / (c_s sqrt(dt / ds))    at the s with log_snr_bar(s) = log_snr(t),

    since x_t = x_bar_s / c_s (`Conversion`) scales the noise and dt / ds the time. By default sampling along `Linear`
    adds as much noise as the VP-SDE of Kim et al. 2025 (arXiv 2503.19385, section 5: "diffusion scale only"; with the
    grid `Matched` as well it is the VP-SDE itself, up to the order of the step). At times noisier than s = 1 of the
    other interpolant, g keeps its value there.

    Args:
        inner: Coefficient g_bar of the other SDE.
        interpolant: Other interpolant.
        latest: Time in (0, 1] at which g stops growing; < 1 where both interpolants reach alpha = 0. g^2 / 2 times
            the first step should stay near or below 1: the default does not on 10 even steps, which need 0.97.
    """

    inner: DiffusionCoefficient = Power()
    interpolant: Interpolant = VP()
    latest: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("latest of Converted", self.latest, above=0, at_most=1)

    def g(self, interpolant: Interpolant, t: Times) -> Times:
        s = Conversion(self.interpolant, interpolant).time(t.clamp(max=self.latest))
        conversion = Conversion(interpolant, self.interpolant)
        t = conversion.time(s)
        if (interpolant.alpha(t) == 0).any():
            raise BadSetting(f"{self} is infinite at t = 1 of {interpolant}, which is pure noise; set latest below 1")
        dt_ds = log_snr_dot(self.interpolant, s) / log_snr_dot(interpolant, t)
        return self.inner.g(self.interpolant, s) / (conversion.scale(s) * torch.sqrt(dt_ds))


def log_snr_dot(interpolant: Interpolant, t: Float64[Tensor, "*times"]) -> Float64[Tensor, "*times"]:
    """Return the derivative of log_snr, 2 (alpha_dot / alpha - sigma_dot / sigma), finite where neither is 0."""
    noise = interpolant.sigma_sigma_dot(t) / interpolant.sigma(t) ** 2
    return 2 * (interpolant.alpha_dot(t) / interpolant.alpha(t) - noise)


@dataclass(frozen=True)
class EulerMaruyama(GaussianKernel):
    """The reverse SDE with the flow's marginals, first order (Kim et al. 2025, arXiv 2503.19385).

        x_s = x + (v - g^2 / 2 score) (s - t) + g sqrt(t - s) z

    Args:
        diffusion: Diffusion coefficient g.

    Converges to the data law: yes, at first order in the step size, for any g that stays finite.
    """

    stochastic = True
    diffusion: DiffusionCoefficient = Power()

    def moments(self, interpolant: Interpolant, x: States, v: States, t: Times, s: Times) -> Moments:
        dt, g = s - t, self.diffusion.g(interpolant, t)
        score = score_from_velocity(interpolant, v, x, as_float(t))
        mean = x + broadcast_like(dt, x) * v - broadcast_like(g**2 / 2 * dt, x) * score
        return Moments(mean, g * torch.sqrt(-dt))


COEFFICIENTS: Registry[DiffusionCoefficient] = Registry(
    "diffusion coefficient",
    DiffusionCoefficient,
    {
        "power": Power,
        "constant": Constant,
        "sigma": Sigma,
        "sine": Sine,
        "exponential": Exponential,
        "tangent": Tangent,
        "memoryless": Memoryless,
        "converted": Converted,
        "clipped": Clipped,
    },
)
"""Every diffusion coefficient, by its name on the command line."""
