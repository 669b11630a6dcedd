"""Deterministic kernels: the flow ODE."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from rollflow.dynamics.conversions import broadcast_like
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.kernels.base import GaussianKernel, Kernel, Moments, VelocityFn
from rollflow.dynamics.shapes import States, Times


@dataclass(frozen=True)
class Euler(GaussianKernel):
    """The flow ODE, first order: x_s = x + v (s - t).

    Converges to the data law: yes, at first order in the step size.
    """

    stochastic = False

    def moments(self, interpolant: Interpolant, x: States, v: States, t: Times, s: Times) -> Moments:
        dt = s - t
        return Moments(x + broadcast_like(dt, x) * v, torch.zeros_like(dt))


@dataclass(frozen=True)
class Heun(Kernel):
    """The flow ODE, second order (Karras et al., 2022, arXiv 2206.00364, algorithm 1).

        y = x + v (s - t),    x_s = x + (v + u_s(y)) (s - t) / 2

    and x_s = y for rows with s = 0, at which a model is not evaluated.

    Cost: 1 further NFE per row and step, none for rows with s = 0.

    Converges to the data law: yes, at second order in the step size.
    """

    stochastic = False
    extra_nfe = 1

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
        half = broadcast_like((s - t) / 2, x)
        x_s = x + 2 * half * v
        rows = (s > 0).expand(len(x)).to(x.device)
        if not rows.any():
            return x_s
        v_s = yield from velocity(x_s[rows], s if s.ndim == 0 else s[s > 0])
        correction = torch.zeros_like(x)
        correction[rows] = v_s - v[rows]
        return x_s + half * correction
