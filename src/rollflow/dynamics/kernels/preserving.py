"""Coefficients-preserving kernels: the clean estimate is noised again to the level of s."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch

from rollflow.checks import real
from rollflow.dynamics.conversions import as_float, broadcast_like, denoised_from_velocity, noise_from_velocity
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.kernels.base import GaussianKernel, Moments
from rollflow.dynamics.shapes import States, Times


class CoefficientsPreserving(GaussianKernel):
    """Give x_s its exact amounts of signal and noise, for any share f of the noise that is drawn anew.

        x_s = alpha_s x0 + sigma_s (sqrt(1 - f) eps + sqrt(f) z)

    with x0 and eps the clean and noise estimates at (x_t, t) (the term is that of Wang & Yu, 2025, arXiv 2509.05952).
    """

    @abstractmethod
    def fresh(self, interpolant: Interpolant, t: Times, s: Times) -> Times:
        """Return f, the share of the noise's variance that is drawn anew: float64 in [0, 1], of shape () or (B,)."""

    def moments(self, interpolant: Interpolant, x: States, v: States, t: Times, s: Times) -> Moments:
        at = as_float(t)
        x0, eps = denoised_from_velocity(interpolant, v, x, at), noise_from_velocity(interpolant, v, x, at)
        alpha, sigma, fresh = interpolant.alpha(s), interpolant.sigma(s), self.fresh(interpolant, t, s)
        mean = broadcast_like(alpha, x) * x0 + broadcast_like(sigma * torch.sqrt(1 - fresh), x) * eps
        return Moments(mean, sigma * torch.sqrt(fresh))


@dataclass(frozen=True)
class DDIM(CoefficientsPreserving):
    """Draw as much fresh noise as the step removes, or a part of it (Song et al., 2021, arXiv 2010.02502).

        x_s = alpha_s x0 + sqrt(sigma_s^2 - r^2) eps + r z,
        r = eta sigma_s sqrt(1 - exp(log_snr_t - log_snr_s))

    with x0 and eps the clean and noise estimates at (x_t, t): their equations 12 and 16 for any interpolant.
    Keeps the marginals at every step size as far as x0 is exact; eta = 1 is the posterior of DDPM, eta = 0 an
    ODE step exact in x0.

    Args:
        eta: Share of fresh noise, in [0, 1].

    Converges to the data law: yes, at first order, since the fresh noise vanishes with the step.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("eta of DDIM, between 0 (an ODE) and 1 (DDPM),", self.eta, at_least=0, at_most=1)

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def fresh(self, interpolant: Interpolant, t: Times, s: Times) -> Times:
        return -(self.eta**2) * torch.expm1(interpolant.log_snr(t) - interpolant.log_snr(s))


@dataclass(frozen=True)
class FlowCPS(CoefficientsPreserving):
    """Draw the same part of the noise anew at every step (Flow-CPS; Wang & Yu, 2025, arXiv 2509.05952).

        x_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) eps + d z,    d = sigma_s sin(pi n / 2)

    with x0 and eps the clean and noise estimates at (x_t, t). It draws equally much however
    short the step: noise that the estimates miss is lost, and samples are less diverse than the data. With Gaussian
    data, many steps keep (1 + cos(pi n / 2)) / 2 of the variance: 0.65 with the default, all with n = 0.

    Args:
        n: Noise level, in [0, 1]: 0 is `DDIM` with eta = 0, 1 is `Renoise`.

    Converges to the data law: no, unless n = 0, since the fresh noise does not vanish with the step.
    """

    n: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        real("n of FlowCPS, between 0 (an ODE) and 1 (all noise fresh),", self.n, at_least=0, at_most=1)

    @property
    def stochastic(self) -> bool:
        return self.n > 0

    def fresh(self, interpolant: Interpolant, t: Times, s: Times) -> Times:
        return torch.full_like(s, math.sin(math.pi * self.n / 2) ** 2)


@dataclass(frozen=True)
class Renoise(CoefficientsPreserving):
    """Draw all noise anew: x_s = alpha_s x0 + sigma_s z, with x0 the clean estimate at (x_t, t).

    `FlowCPS` with n = 1, and what diffusers' FlowMatchEulerDiscreteScheduler does with stochastic_sampling=True. It is
    multistep consistency sampling (Song et al., 2023, arXiv 2303.01469, algorithm 1), which is right for models whose
    clean estimate is a sample, such as consistency models, rather than a mean.

    Converges to the data law: no; with Gaussian data, many steps keep half the variance.
    """

    stochastic = True

    def fresh(self, interpolant: Interpolant, t: Times, s: Times) -> Times:
        return torch.ones_like(s)
