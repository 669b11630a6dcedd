"""One-dimensional laws with exact velocities, and how a kernel carries them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rollflow.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.kernels import Kernel
from rollflow.kernels.base import GaussianKernel
from rollflow.models.gaussian_mixture import GaussianMixture
from rollflow.schedules import Grid, Uniform

INTERPOLANTS = [Linear(), VP(), Cosine(), Polynomial(2)]
EVEN = Uniform()
MEAN, STD = 0.8, 0.6


def lopsided(interpolant: Interpolant) -> GaussianMixture:
    """Two modes of different weights and widths."""
    return GaussianMixture(
        torch.tensor([0.35, 0.65]), torch.tensor([[-1.0], [1.2]]), torch.tensor([0.4, 0.5]), interpolant
    )


def gaussian(interpolant: Interpolant) -> GaussianMixture:
    """N(MEAN, STD^2)."""
    mean, std = torch.tensor([[MEAN]], dtype=torch.float64), torch.tensor([STD], dtype=torch.float64)
    return GaussianMixture(torch.ones(1), mean, std, interpolant)


def affine_velocity(interpolant: Interpolant, t: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the velocity when the data are N(MEAN, STD^2): regress x0_dot on x_t."""
    a, s = interpolant.alpha(t), interpolant.sigma(t)
    a_dot = interpolant.alpha_dot(t)
    k = (a_dot * a * STD**2 + interpolant.sigma_sigma_dot(t)) / (a**2 * STD**2 + s**2)
    return k, (a_dot - k * a) * MEAN


def ask(x: Tensor, s: Tensor) -> Generator[Any, Any, Tensor]:
    v: Tensor = yield x, s
    return v


def finish(step: Generator[Any, Any, Tensor], model: GaussianMixture) -> tuple[Tensor, int]:
    """Answer the velocity requests of a step; its result and the evaluations that it asked for."""
    nfe = 0
    try:
        x, s = next(step)
        while True:
            nfe += len(x)
            x, s = step.send(model.velocity(x, s))
    except StopIteration as stop:
        return stop.value, nfe


def run(kernel: Kernel, model: GaussianMixture, x: Tensor, steps: int, grid: Grid = EVEN, seed: int = 0) -> Tensor:
    """Carry states x, all at once, from t = 1 to t = 0."""
    rng = torch.Generator().manual_seed(seed)
    for t, s in pairwise(grid(steps)):
        z = torch.randn(x.shape, dtype=x.dtype, generator=rng)
        x, _ = finish(kernel.step(model.interpolant, x, model.velocity(x, t), t, s, z, ask), model)
    return x


def at_noise(interpolant: Interpolant, std: float = STD) -> tuple[Tensor, Tensor]:
    """Mean and variance of x_1 when the data are N(MEAN, std^2)."""
    alpha, sigma = interpolant.alpha(1.0), interpolant.sigma(1.0)
    return alpha * MEAN, alpha**2 * std**2 + sigma**2


def carry(
    kernel: GaussianKernel,
    interpolant: Interpolant,
    velocity: Callable[[Tensor, Tensor], Tensor],
    law: tuple[Tensor, Tensor],
    t: Tensor,
    s: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean and variance after a step of N(law) under an affine velocity: exact, and without sampling."""
    mean, variance = law
    x = torch.stack([mean, mean + 1])[:, None]
    centre, std = kernel.moments(interpolant, x, velocity(x, t), t, s)
    return centre[0, 0], (centre[1, 0] - centre[0, 0]) ** 2 * variance + std**2


def slope(errors: list[float]) -> float:
    """Order of convergence from errors at doubling numbers of steps: the least-squares slope in log-log."""
    y = torch.tensor(errors, dtype=torch.float64).log2()
    i = torch.arange(len(y), dtype=torch.float64)
    return -(((i - i.mean()) * (y - y.mean())).sum() / (i - i.mean()).square().sum()).item()


def wasserstein(x: Tensor, model: GaussianMixture) -> tuple[float, float]:
    """W1 of samples to the exact law, and its expectation's upper bound were they exact samples.

    W1 is the integral of |F_n - F|, and E|F_n - F| <= sqrt(F (1 - F) / n).
    """
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    exact = model.cdf(grid)
    empirical = torch.searchsorted(x.flatten().sort().values, grid, right=True) / len(x)
    floor = torch.trapezoid((exact * (1 - exact) / len(x)).sqrt(), grid)
    return torch.trapezoid((empirical - exact).abs(), grid).item(), floor.item()
