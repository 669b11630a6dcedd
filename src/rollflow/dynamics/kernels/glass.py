"""GLASS: a stochastic transition drawn by an inner ODE."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from rollflow.checks import MOST_STEPS, real, whole
from rollflow.dynamics.conversions import broadcast_like, denoised_from_velocity
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.kernels.base import Kernel, VelocityFn
from rollflow.dynamics.shapes import States, Times


@dataclass(frozen=True)
class GLASS(Kernel):
    """A stochastic transition drawn by an inner ODE (Holderrieth et al., 2025, arXiv 2509.25170).

    It draws x_s from its law given x_t, under the model in which their noises have correlation rho given x0:

        x_t = alpha_t x0 + sigma_t eps,    x_s = alpha_s x0 + sigma_s (rho eps + sqrt(1 - rho^2) z)

    The part of x_s that does not follow from x_t, r = x_s - gamma x_t with gamma = rho sigma_s / sigma_t, is the end of
    a path from pure noise, whose flow is solved in Euler steps from q = 0 to q = 1:

        r_q = A_q x0 + B_q z,    A_q = q (alpha_s - gamma alpha_t),    B_q = 1 - q + q sigma_s sqrt(1 - rho^2),
        dr / dq = A' x0_q + B' (r - A x0_q) / B,    r_0 = z,    x_s = gamma x_t + r_1

    Here x0_q = E[x0 | x_t, r_q] is the model's clean estimate at one state, which is a sufficient statistic of the two:

        exp(log_snr(u)) = alpha_t^2 / sigma_t^2 + A^2 / B^2,
        x_u = alpha_u (alpha_t x_t / sigma_t^2 + A r / B^2) exp(-log_snr(u))

    The paper solves for y = r + gamma x_t instead. At q = 0, (x_u, u) is (x_t, t), whose velocity v is known already.

    Args:
        steps: Number of Euler steps of the inner ODE, >= 1. A single one is `DDIM` with eta = 1, or with a constant rho
            `FlowCPS` with cos(pi n / 2) = rho.
        rho: Correlation, in [0, 1); None is that of DDPM's posterior, alpha_t sigma_s / (alpha_s sigma_t).

    Cost: steps - 1 further NFE per row and step, steps to s = 0 included.

    Converges to the data law: yes with rho = None; with a constant rho only if the number of inner steps grows as well.
    """

    steps: int = 4
    rho: float | None = None
    stochastic = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("inner steps of GLASS", self.steps, at_least=1, at_most=MOST_STEPS)
        if self.rho is not None:
            real("rho of GLASS", self.rho, at_least=0, below=1)

    @property
    def extra_nfe(self) -> int:
        return self.steps - 1

    def correlation(self, interpolant: Interpolant, t: Times, s: Times) -> Times:
        """Return rho, float64 of shape () or (B,)."""
        posterior = torch.exp((interpolant.log_snr(t) - interpolant.log_snr(s)) / 2)
        return posterior if self.rho is None else torch.full_like(posterior, self.rho)

    def step(
        self,
        interpolant: Interpolant,
        x: States,
        v: States,
        t: Times,
        s: Times,
        noise: States | None,
        velocity: VelocityFn,
    ) -> Generator[Any, Any, States]:
        alpha, sigma, rho = interpolant.alpha(t), interpolant.sigma(t), self.correlation(interpolant, t, s)
        gamma = rho * interpolant.sigma(s) / sigma
        signal, fresh = interpolant.alpha(s) - gamma * alpha, interpolant.sigma(s) * torch.sqrt(1 - rho**2)
        r, x0 = self.drawn(noise, x), denoised_from_velocity(interpolant, v, x, t)
        for i in range(self.steps):
            q = i / self.steps
            a, b = q * signal, 1 - q + q * fresh
            if i > 0:
                snr = (alpha / sigma) ** 2 + (a / b) ** 2
                u = interpolant.time_at_log_snr(snr.log())
                scale = interpolant.alpha(u) / snr
                x_u = broadcast_like(scale * alpha / sigma**2, x) * x + broadcast_like(scale * a / b**2, x) * r
                v_u = yield from velocity(x_u, u)
                x0 = denoised_from_velocity(interpolant, v_u, x_u, u)
            z = (r - broadcast_like(a, x) * x0) / broadcast_like(b, x)
            r = r + (broadcast_like(signal, x) * x0 + broadcast_like(fresh - 1, x) * z) / self.steps
        return broadcast_like(gamma, x) * x + r
