"""Interpolants: paths from data to noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import Settings, real
from rollflow.dynamics.shapes import Time
from rollflow.registry import Registry


def as_float64(value: Time) -> Float64[Tensor, "*times"]:
    """Return `value` as a float64 tensor on its own device."""
    return torch.as_tensor(value, dtype=torch.float64)


class Interpolant(Settings, ABC):
    r"""A path from data (t = 0) to noise (t = 1).

        x_t = alpha_t x0 + sigma_t eps,    eps ~ N(0, I)

    with alpha falling from 1, sigma rising from 0, and hence the log signal-to-noise ratio
    log_snr = 2 log(alpha / sigma) falling strictly from +inf. Its inverse is what carries a model from one
    interpolant to another (Kim et al., 2025, arXiv 2503.19385).

    Every method takes times of any shape, or a number, and returns a float64 tensor of that shape. An interpolant is a
    frozen dataclass of its settings: equal ones are the same path, and coefficients are cached by it.
    """

    @abstractmethod
    def alpha(self, t: Time) -> Float64[Tensor, "*times"]:
        """Return the signal scale alpha_t, exactly 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Time) -> Float64[Tensor, "*times"]:
        """Return the noise scale sigma_t, exactly 0 at t = 0."""

    @abstractmethod
    def alpha_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        """Return the derivative of `alpha`."""

    @abstractmethod
    def sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        """Return the derivative of `sigma`, which may be +inf at t = 0 (see `sigma_sigma_dot`)."""

    def sigma_sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        """Return sigma * sigma_dot, half the derivative of sigma^2, which is finite on all of [0, 1]."""
        return self.sigma(t) * self.sigma_dot(t)

    def log_snr(self, t: Time) -> Float64[Tensor, "*times"]:
        """Return 2 log(alpha / sigma): +inf at t = 0, -inf where alpha = 0."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    @abstractmethod
    def time_at_log_snr(self, log_snr: Time) -> Float64[Tensor, "*times"]:
        """Return the inverse of `log_snr`: 0 for +inf, and 1 for anything at or below log_snr(1)."""


@dataclass(frozen=True)
class Linear(Interpolant):
    """alpha = 1 - t, sigma = t (rectified flow; Liu et al., 2022, arXiv 2209.03003), as in FLUX and SD3."""

    def alpha(self, t: Time) -> Float64[Tensor, "*times"]:
        return 1 - as_float64(t)

    def sigma(self, t: Time) -> Float64[Tensor, "*times"]:
        return as_float64(t)

    def alpha_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return -torch.ones_like(as_float64(t))

    def sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return torch.ones_like(as_float64(t))

    def time_at_log_snr(self, log_snr: Time) -> Float64[Tensor, "*times"]:
        return torch.sigmoid(-as_float64(log_snr) / 2)


@dataclass(frozen=True)
class VP(Interpolant):
    """Variance preserving (Song et al., 2021, arXiv 2011.13456, appendix B).

        alpha = exp(-T / 2),  sigma = sqrt(1 - exp(-T)),  T(t) = t^2 (beta_max - beta_min) / 2 + t beta_min

    Pure noise is not reached exactly: alpha(1) = 0.0066 with the usual constants, so that `time_at_log_snr` clamps
    noisier values to 1. sigma_dot is +inf at t = 0; `sigma_sigma_dot` = T' alpha^2 / 2 is not.

    Args:
        beta_min: Rate of noising at t = 0, > 0.
        beta_max: Rate of noising at t = 1, from beta_min to 1000.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("beta_min of VP", self.beta_min, above=0)
        real("beta_max of VP", self.beta_max, at_least=self.beta_min, at_most=1000)  # alpha(1) is above 0 in float64

    def _rate(self, t: Time) -> Float64[Tensor, "*times"]:
        return self.beta_min + as_float64(t) * (self.beta_max - self.beta_min)

    def _total(self, t: Time) -> Float64[Tensor, "*times"]:
        t = as_float64(t)
        return t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)

    def alpha(self, t: Time) -> Float64[Tensor, "*times"]:
        return torch.exp(-self._total(t) / 2)

    def sigma(self, t: Time) -> Float64[Tensor, "*times"]:
        return torch.sqrt(-torch.expm1(-self._total(t)))

    def alpha_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return -self._rate(t) * self.alpha(t) / 2

    def sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return self.sigma_sigma_dot(t) / self.sigma(t)

    def sigma_sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return self._rate(t) * torch.exp(-self._total(t)) / 2

    def log_snr(self, t: Time) -> Float64[Tensor, "*times"]:
        return -torch.expm1(self._total(t)).log()

    def time_at_log_snr(self, log_snr: Time) -> Float64[Tensor, "*times"]:
        log_nsr, last = -as_float64(log_snr), (self.beta_min + self.beta_max) / 2
        total = torch.logaddexp(log_nsr, torch.zeros_like(log_nsr)).clamp(max=last)
        # The root of the quadratic in the form that does not cancel when T is small.
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * total)
        return (2 * total / (self.beta_min + root)).clamp(max=1.0)


@dataclass(frozen=True)
class Cosine(Interpolant):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Albergo & Vanden-Eijnden, 2023, arXiv 2209.15571)."""

    def alpha(self, t: Time) -> Float64[Tensor, "*times"]:
        # The complementary sine: the cosine of a rounded pi / 2 would not be 0 at t = 1.
        return torch.sin((1 - as_float64(t)) * (math.pi / 2))

    def sigma(self, t: Time) -> Float64[Tensor, "*times"]:
        return torch.sin(as_float64(t) * (math.pi / 2))

    def alpha_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return -self.sigma(t) * (math.pi / 2)

    def sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return self.alpha(t) * (math.pi / 2)

    def time_at_log_snr(self, log_snr: Time) -> Float64[Tensor, "*times"]:
        return torch.atan(torch.exp(-as_float64(log_snr) / 2)) / (math.pi / 2)


@dataclass(frozen=True)
class Polynomial(Interpolant):
    """alpha = 1 - t^n, sigma = t^n: the linear path with time t^n.

    Lipman et al. (2024, arXiv 2412.06264) raise to the power n the time that is 1 at the data; here time is 1 at the
    noise, so that n > 1 lingers near the data.

    Args:
        n: Degree, from 1 to 100; 1 is `Linear`.
    """

    n: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("n of Polynomial", self.n, at_least=1, at_most=100)

    def alpha(self, t: Time) -> Float64[Tensor, "*times"]:
        return 1 - as_float64(t) ** self.n

    def sigma(self, t: Time) -> Float64[Tensor, "*times"]:
        return as_float64(t) ** self.n

    def alpha_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return -self.sigma_dot(t)

    def sigma_dot(self, t: Time) -> Float64[Tensor, "*times"]:
        return self.n * as_float64(t) ** (self.n - 1)

    def time_at_log_snr(self, log_snr: Time) -> Float64[Tensor, "*times"]:
        return torch.sigmoid(-as_float64(log_snr) / 2) ** (1 / self.n)


INTERPOLANTS: Registry[Interpolant] = Registry(
    "interpolant", Interpolant, {"linear": Linear, "vp": VP, "cosine": Cosine, "polynomial": Polynomial}
)
