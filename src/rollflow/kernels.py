"""Kernels: how x_t becomes x_s, with t > s."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rollflow.conversions import (
    broadcast_like,
    denoised_from_velocity,
    noise_from_velocity,
    score_from_velocity,
)
from rollflow.interpolants import Interpolant
from rollflow.registry import Registry

VelocityFn: TypeAlias = Callable[[Tensor, Tensor], Generator[Any, Any, Tensor]]
"""A request for the velocity at (x, s), in the kernel's interpolant."""


class Moments(NamedTuple):
    """A Gaussian transition: mean of shape (B, ...), and std in float64 of shape () or (B,)."""

    mean: Tensor
    std: Tensor


class Kernel(ABC):
    """A transition from t to s < t, given the velocity v at (x_t, t).

    A step is a generator, because some kernels ask for velocities of their own on the way.

    Attributes:
        extra_nfe: Velocity evaluations per row and step beyond v; steps to s = 0 may need none.
    """

    extra_nfe: ClassVar[int] = 0

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether two steps from one state can differ."""

    @abstractmethod
    def step(
        self,
        interpolant: Interpolant,
        x: Tensor,
        v: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Tensor | None,
        velocity: VelocityFn,
    ) -> Generator[Any, Any, Tensor]:
        """Yield what the step needs evaluated, and return x_s.

        Args:
            interpolant: The one that x, v and the times belong to.
            x: State x_t, of shape (B, ...).
            v: Velocity at (x, t), of the shape of x.
            t: Time, in (0, 1], of shape () or (B,).
            s: Next time, in [0, t), of shape () or (B,).
            noise: Standard normal of the shape of x; None will do for a deterministic kernel.
            velocity: How to ask for further velocities.

        Raises:
            ValueError: If the kernel is stochastic and noise is None.
        """


class GaussianKernel(Kernel):
    """x_s = mean + std z: one Gaussian draw and no further evaluation."""

    @abstractmethod
    def moments(self, interpolant: Interpolant, x: Tensor, v: Tensor, t: Tensor, s: Tensor) -> Moments:
        """Mean and standard deviation of x_s; the arguments are those of `step`."""

    def step(
        self,
        interpolant: Interpolant,
        x: Tensor,
        v: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Tensor | None,
        velocity: VelocityFn,
    ) -> Generator[Any, Any, Tensor]:
        yield from ()
        mean, std = self.moments(interpolant, x, v, t, s)
        if not self.stochastic:
            return mean
        if noise is None:
            raise ValueError(f"{self} is stochastic: pass standard normal noise of shape {tuple(x.shape)}, not None")
        return mean + broadcast_like(std, x) * noise


@dataclass(frozen=True)
class Euler(GaussianKernel):
    """The flow ODE, first order: x_s = x + v (s - t)."""

    stochastic = False

    def moments(self, interpolant: Interpolant, x: Tensor, v: Tensor, t: Tensor, s: Tensor) -> Moments:
        dt = s - t
        return Moments(x + broadcast_like(dt, x) * v, torch.zeros_like(dt))


@dataclass(frozen=True)
class Heun(Kernel):
    """The flow ODE, second order (Karras et al., 2022, arXiv 2206.00364, algorithm 1).

        y = x + v (s - t),    x_s = x + (v + u_s(y)) (s - t) / 2

    and x_s = y for rows with s = 0, whose velocity is known only up to the model's last noise level.

    Cost: 1 further NFE per row and step, none for rows with s = 0.
    """

    stochastic = False
    extra_nfe: ClassVar[int] = 1

    def step(
        self,
        interpolant: Interpolant,
        x: Tensor,
        v: Tensor,
        t: Tensor,
        s: Tensor,
        noise: Tensor | None,
        velocity: VelocityFn,
    ) -> Generator[Any, Any, Tensor]:
        half = broadcast_like((s - t) / 2, x)
        x_s = x + 2 * half * v
        rows = (s > 0).expand(len(x)).to(x.device)
        if not rows.any():
            return x_s
        v_s = yield from velocity(x_s[rows], s if s.ndim == 0 else s[s > 0])
        correction = torch.zeros_like(x)
        correction[rows] = v_s - v[rows]
        return x_s + half * correction


class DiffusionCoefficient(ABC):
    """How much noise the reverse SDE adds: any g_t >= 0 leaves its marginals those of the flow."""

    @abstractmethod
    def g(self, interpolant: Interpolant, t: Tensor) -> Tensor:
        """g_t, float64, of the shape of t."""


@dataclass(frozen=True)
class Power(DiffusionCoefficient):
    """g_t = scale t^exponent; the paper's is 3 t^2 (arXiv 2503.19385)."""

    scale: float = 3.0
    exponent: float = 2.0

    def g(self, interpolant: Interpolant, t: Tensor) -> Tensor:
        return self.scale * t**self.exponent


@dataclass(frozen=True)
class Constant(DiffusionCoefficient):
    """g_t = value; it keeps adding noise at the end, so that it needs small last steps."""

    value: float

    def g(self, interpolant: Interpolant, t: Tensor) -> Tensor:
        return torch.full_like(t, self.value)


@dataclass(frozen=True)
class Sigma(DiffusionCoefficient):
    """g_t = scale sigma_t."""

    scale: float = 1.0

    def g(self, interpolant: Interpolant, t: Tensor) -> Tensor:
        return self.scale * interpolant.sigma(t)


@dataclass(frozen=True)
class Memoryless(DiffusionCoefficient):
    """g_t = scale sqrt(2 (sigma sigma_dot - sigma^2 alpha_dot / alpha)), read at min(t, latest).

    With scale = 1 the SDE is the exact reversal of the forward noising process, which forgets x0
    (Domingo-Enrich et al., 2024, arXiv 2409.08861): sqrt(2 t / (1 - t)) for `Linear`, the root of the noising
    rate for `VP`. With scale = sqrt(1/2) it is sqrt(t / (1 - t)) for `Linear` (Flow-GRPO, Liu et al., 2025,
    arXiv 2505.05470, whose factor is 0.7).

    Args:
        scale: >= 0.
        latest: Time in (0, 1) at which g stops growing, since it is infinite where alpha = 0. Any value is
            correct; g^2 / 2 times the first step should stay near or below 1.
    """

    scale: float = 1.0
    latest: float = 0.9

    def g(self, interpolant: Interpolant, t: Tensor) -> Tensor:
        t = t.clamp(max=self.latest)
        decay = interpolant.sigma(t) ** 2 * interpolant.alpha_dot(t) / interpolant.alpha(t)
        return self.scale * torch.sqrt(2 * (interpolant.sigma_sigma_dot(t) - decay))


@dataclass(frozen=True)
class EulerMaruyama(GaussianKernel):
    """The reverse SDE with the flow's marginals, first order (arXiv 2503.19385).

        x_s = x + (v - g^2 / 2 score) (s - t) + g sqrt(t - s) z

    Args:
        diffusion: The coefficient g.
    """

    stochastic = True
    diffusion: DiffusionCoefficient = Power()

    def moments(self, interpolant: Interpolant, x: Tensor, v: Tensor, t: Tensor, s: Tensor) -> Moments:
        dt, g = s - t, self.diffusion.g(interpolant, t)
        score = score_from_velocity(interpolant, v, x, t)
        mean = x + broadcast_like(dt, x) * v - broadcast_like(g**2 / 2 * dt, x) * score
        return Moments(mean, g * torch.sqrt(-dt))


@dataclass(frozen=True)
class DDIM(GaussianKernel):
    """Re-noise the clean estimate, partly with the noise that is there (Song et al., 2021, arXiv 2010.02502).

        x_s = alpha_s x0 + sqrt(sigma_s^2 - r^2) eps + r z,
        r = eta sigma_s sqrt(1 - exp(log_snr_t - log_snr_s))

    with x0 and eps the clean and noise estimates at (x_t, t): their equations 12 and 16 for any interpolant.
    Keeps the marginals at every step size as far as x0 is exact; eta = 1 is the posterior of DDPM, eta = 0 an
    ODE step exact in x0.

    Args:
        eta: Share of fresh noise, in [0, 1].
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"DDIM needs eta between 0 (an ODE) and 1 (DDPM); got {self.eta}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def moments(self, interpolant: Interpolant, x: Tensor, v: Tensor, t: Tensor, s: Tensor) -> Moments:
        x0 = denoised_from_velocity(interpolant, v, x, t)
        eps = noise_from_velocity(interpolant, v, x, t)
        alpha, sigma = interpolant.alpha(s), interpolant.sigma(s)
        fresh = -torch.expm1(interpolant.log_snr(t) - interpolant.log_snr(s))
        kept = sigma * torch.sqrt(1 - self.eta**2 * fresh)
        mean = broadcast_like(alpha, x) * x0 + broadcast_like(kept, x) * eps
        return Moments(mean, self.eta * sigma * torch.sqrt(fresh))


KERNELS: Registry[Kernel] = Registry("kernel", Kernel, {"ode": Euler, "heun": Heun, "sde": EulerMaruyama, "ddim": DDIM})
