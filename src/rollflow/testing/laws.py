"""One-dimensional laws with exact velocities, and the distance of a kernel's samples from them."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rollflow.dynamics.grids import Grid, Uniform
from rollflow.dynamics.interpolants import Interpolant, Linear
from rollflow.dynamics.kernels import Kernel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture

LINEAR = Linear()
EVEN = Uniform()
PARTICLES = 8_000


class Flow(Protocol):
    """Anything with a velocity."""

    def velocity(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return velocities (B, ...) at states x (B, ...) and times t () or (B,)."""


def two_modes(interpolant: Interpolant) -> GaussianMixture:
    """Return the mixture 0.5 N(-1, 0.3^2) + 0.5 N(1, 0.3^2)."""
    return GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.3, 0.3]), interpolant)


class Pixels(NamedTuple):
    """Samples of any shape, whose entries are independent draws from ``two_modes``."""

    interpolant: Interpolant

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        times = t.expand(len(x)).repeat_interleave(x[0].numel())
        return two_modes(self.interpolant).velocity(x.reshape(-1, 1), times).reshape(x.shape)


def ask(x: Tensor, s: Tensor) -> Generator[Any, Any, Tensor]:
    """Request the velocity at (x, s), which ``finish`` answers."""
    v: Tensor = yield x, s
    return v


def finish(step: Generator[Any, Any, Tensor], flow: Flow) -> tuple[Tensor, int]:
    """Answer the velocity requests of a step; return its result and the number of evaluations."""
    nfe = 0
    try:
        x, s = next(step)
        while True:
            nfe += len(x)
            x, s = step.send(flow.velocity(x, s))
    except StopIteration as stop:
        return stop.value, nfe


def run(kernel: Kernel, model: GaussianMixture, x: Tensor, steps: int, grid: Grid = EVEN, seed: int = 0) -> Tensor:
    """Take states x from t = 1 to t = 0."""
    rng = torch.Generator().manual_seed(seed)
    for t, s in pairwise(grid(steps)):
        z = torch.randn(x.shape, dtype=x.dtype, generator=rng)
        x, _ = finish(kernel.step(model.interpolant, x, model.velocity(x, t), t, s, z, ask), model)
    return x


class Distance(NamedTuple):
    """The W1 distance of samples to the exact law, and its bound for the same number of exact samples."""

    w1: float
    floor: float


def wasserstein(x: Tensor, model: GaussianMixture) -> Distance:
    """Return the distance of samples to the exact law.

    W1 is the integral of |F_n - F|, and E|F_n - F| <= sqrt(F (1 - F) / n).
    """
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    exact = model.cdf(grid)
    empirical = torch.searchsorted(x.flatten().sort().values, grid, right=True) / len(x)
    floor = torch.trapezoid((exact * (1 - exact) / len(x)).sqrt(), grid)
    return Distance(torch.trapezoid((empirical - exact).abs(), grid).item(), floor.item())


@cache
def distance(kernel: Kernel, steps: int, interpolant: Interpolant = LINEAR, grid: Grid = EVEN) -> Distance:
    """Return the distance after a kernel has moved particles from noise to ``two_modes`` in a number of steps."""
    x = torch.randn(PARTICLES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = two_modes(interpolant)
    return wasserstein(run(kernel, model, x, steps, grid), model)
