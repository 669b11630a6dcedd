"""One-dimensional laws with exact velocities, and how a Gaussian kernel carries them without sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.dynamics.kernels import GaussianKernel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture

INTERPOLANTS = [Linear(), VP(), Cosine(), Polynomial(2)]
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
