"""Kernels against exact Gaussian moments, exact one-dimensional flows and the exact law of a mixture."""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.kernels import (
    DDIM,
    KERNELS,
    Constant,
    DiffusionCoefficient,
    Euler,
    EulerMaruyama,
    GaussianKernel,
    Heun,
    Kernel,
    Memoryless,
    Power,
    Sigma,
)
from rollflow.models.gaussian_mixture import GaussianMixture
from rollflow.schedules import Uniform

INTERPOLANTS = [Linear(), VP(), Cosine(), Polynomial(2)]
COEFFICIENTS = [Power(), Constant(0.7), Sigma(1.5), Memoryless(), Memoryless(math.sqrt(0.5))]
every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
every_coefficient = pytest.mark.parametrize("diffusion", COEFFICIENTS, ids=str)


def law(interpolant: Interpolant) -> GaussianMixture:
    return GaussianMixture(
        torch.tensor([0.35, 0.65]), torch.tensor([[-1.0], [1.2]]), torch.tensor([0.4, 0.5]), interpolant
    )


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


def ask(x: Tensor, s: Tensor) -> Generator[Any, Any, Tensor]:
    v: Tensor = yield x, s
    return v


def run(kernel: Kernel, model: GaussianMixture, x: Tensor, steps: int, seed: int = 0) -> Tensor:
    rng, times = torch.Generator().manual_seed(seed), Uniform()(steps)
    for t, s in pairwise(times):
        z = torch.randn(x.shape, dtype=x.dtype, generator=rng)
        x, _ = finish(kernel.step(model.interpolant, x, model.velocity(x, t), t, s, z, ask), model)
    return x


def flow_error(kernel: Kernel, interpolant: Interpolant, steps: int) -> float:
    """Error in quantiles: the exact one-dimensional flow is the increasing map between the marginals."""
    model, x = law(interpolant), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    alpha, sigma = interpolant.alpha(1.0), interpolant.sigma(1.0)
    noise = GaussianMixture(model.weights, alpha * model.means, (alpha**2 * model.stds**2 + sigma**2).sqrt())
    return (model.cdf(run(kernel, model, x, steps)) - noise.cdf(x)).abs().max().item()


def slope(errors: list[float]) -> float:
    """Order of convergence from errors at doubling numbers of steps: the least-squares slope in log-log."""
    y = torch.tensor(errors, dtype=torch.float64).log2()
    i = torch.arange(len(y), dtype=torch.float64)
    return -(((i - i.mean()) * (y - y.mean())).sum() / (i - i.mean()).square().sum()).item()


@every
@pytest.mark.parametrize(("kernel", "order"), [(Euler(), 1.0), (Heun(), 2.0), (DDIM(0.0), 1.0)], ids=str)
def test_order_of_convergence(kernel: Kernel, order: float, interpolant: Interpolant) -> None:
    errors = [flow_error(kernel, interpolant, steps) for steps in (40, 80, 160, 320)]
    assert errors[-1] < 5 / 320**order
    assert slope(errors) == pytest.approx(order, abs=0.15 * order)


@every
def test_heun_pays_for_the_rows_that_do_not_end_at_zero_and_for_no_other(interpolant: Interpolant) -> None:
    model, x = law(interpolant), torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]
    t, s = torch.tensor([0.5, 0.4, 0.9, 0.2]).double(), torch.tensor([0.3, 0.0, 0.8, 0.0]).double()
    v = model.velocity(x, t)
    batch, nfe = finish(Heun().step(interpolant, x, v, t, s, None, ask), model)
    assert nfe == 2 * Heun.extra_nfe
    for i in range(4):
        alone, _ = finish(Heun().step(interpolant, x[i : i + 1], v[i : i + 1], t[i], s[i], None, ask), model)
        assert torch.equal(alone, batch[i : i + 1])
    assert torch.equal(batch[s == 0], (x + (s - t)[:, None] * v)[s == 0])
    y = x + (s - t)[:, None] * v
    trapezoid = x + (s - t)[:, None] * (v + model.velocity(y, s)) / 2
    torch.testing.assert_close(batch[s > 0], trapezoid[s > 0])


MEAN, STD = 0.8, 0.6


def affine_velocity(interpolant: Interpolant, t: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the velocity when the data are N(MEAN, STD^2): regress x0_dot on x_t."""
    a, s = interpolant.alpha(t), interpolant.sigma(t)
    a_dot = interpolant.alpha_dot(t)
    k = (a_dot * a * STD**2 + interpolant.sigma_sigma_dot(t)) / (a**2 * STD**2 + s**2)
    return k, (a_dot - k * a) * MEAN


@every
@every_coefficient
def test_euler_maruyama_has_the_moments_of_the_affine_recursion(
    interpolant: Interpolant, diffusion: DiffusionCoefficient
) -> None:
    kernel, times = EulerMaruyama(diffusion), Uniform()(12)
    a1, s1 = interpolant.alpha(times[0]), interpolant.sigma(times[0])
    mean, variance = a1 * MEAN, a1**2 * STD**2 + s1**2
    by_moments = (mean, variance)
    for t, s in pairwise(times):
        k, b = affine_velocity(interpolant, t)
        marginal = interpolant.alpha(t) ** 2 * STD**2 + interpolant.sigma(t) ** 2
        g2, h = diffusion.g(interpolant, t) ** 2, t - s
        pull = g2 / (2 * marginal)
        factor, offset = 1 - h * (k + pull), -h * (b - pull * interpolant.alpha(t) * MEAN)
        mean, variance = factor * mean + offset, factor**2 * variance + g2 * h
        m, var = by_moments
        x = torch.stack([m, m + 1])[:, None]
        centre, std = kernel.moments(interpolant, x, k * x + b, t, s)
        by_moments = (centre[0, 0], (centre[1, 0] - centre[0, 0]) ** 2 * var + std**2)
    torch.testing.assert_close(torch.stack(by_moments), torch.stack((mean, variance)), rtol=1e-10, atol=1e-10)


@every
@every_coefficient
def test_euler_maruyama_keeps_the_law_to_first_order(interpolant: Interpolant, diffusion: DiffusionCoefficient) -> None:
    """Gaussian data stay Gaussian: mean and variance at t = 0, without sampling, for any g."""
    kernel = EulerMaruyama(diffusion)

    def error(steps: int) -> float:
        times = Uniform()(steps)
        alpha, sigma = interpolant.alpha(1.0), interpolant.sigma(1.0)
        mean, variance = alpha * MEAN, alpha**2 * STD**2 + sigma**2
        for t, s in pairwise(times):
            k, b = affine_velocity(interpolant, t)
            x = torch.stack([mean, mean + 1])[:, None]
            centre, std = kernel.moments(interpolant, x, k * x + b, t, s)
            mean, variance = centre[0, 0], (centre[1, 0] - centre[0, 0]) ** 2 * variance + std**2
        return (mean - MEAN).abs().item() + (variance - STD**2).abs().item()

    errors = [error(steps) for steps in (100, 200, 400)]
    assert errors[-1] < 2 / 400
    # For Linear the first-order error of the memoryless coefficient all but cancels, and the order with it.
    assert errors[0] < 1e-4 or slope(errors) == pytest.approx(1.0, abs=0.1)


@every
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_keeps_every_marginal_where_the_clean_estimate_is_exact(interpolant: Interpolant, eta: float) -> None:
    """A point mass at MEAN: x_t ~ N(alpha MEAN, sigma^2) at every time of a coarse grid, ends included."""
    kernel, times = DDIM(eta), torch.tensor([1.0, 0.93, 0.6, 0.2, 0.01, 0.0], dtype=torch.float64)
    mean, variance = interpolant.alpha(1.0) * MEAN, interpolant.sigma(1.0) ** 2
    for t, s in pairwise(times):
        x = torch.stack([mean, mean + 1])[:, None]
        eps = (x - interpolant.alpha(t) * MEAN) / interpolant.sigma(t)
        v = interpolant.alpha_dot(t) * MEAN + interpolant.sigma_dot(t) * eps
        centre, std = kernel.moments(interpolant, x, v, t, s)
        mean, variance = centre[0, 0], (centre[1, 0] - centre[0, 0]) ** 2 * variance + std**2
        torch.testing.assert_close(mean, interpolant.alpha(s) * MEAN, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(variance, interpolant.sigma(s) ** 2, rtol=1e-9, atol=1e-20)


@every
def test_ddim_with_eta_one_is_the_posterior_of_the_forward_process(interpolant: Interpolant) -> None:
    t, s = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.45, dtype=torch.float64)
    x, x0 = torch.tensor([[0.3], [-2.0]]).double(), torch.tensor([[1.1], [0.4]]).double()
    a_t, s_t, a_s, s_s = (
        interpolant.alpha(t),
        interpolant.sigma(t),
        interpolant.alpha(s),
        interpolant.sigma(s),
    )
    # Bayes: x_s | x0 ~ N(a_s x0, s_s^2) seen through x_t = (a_t / a_s) x_s + noise of variance q.
    ratio = a_t / a_s
    q = s_t**2 - ratio**2 * s_s**2
    precision = 1 / s_s**2 + ratio**2 / q
    posterior = (a_s * x0 / s_s**2 + ratio * x / q) / precision
    v = interpolant.alpha_dot(t) * x0 + interpolant.sigma_dot(t) * (x - a_t * x0) / s_t
    mean, std = DDIM(1.0).moments(interpolant, x, v, t, s)
    torch.testing.assert_close(mean, posterior)
    torch.testing.assert_close(std**2, 1 / precision)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_the_published_formula_for_linear(eta: float) -> None:
    t, s = torch.tensor([0.9, 0.5]).double(), torch.tensor([0.6, 0.1]).double()
    x, v = torch.tensor([[0.3], [-2.0]]).double(), torch.tensor([[1.1], [0.4]]).double()
    mean, std = DDIM(eta).moments(Linear(), x, v, t, s)
    r = eta * s * torch.sqrt(1 - s**2 * (1 - t) ** 2 / (t**2 * (1 - s) ** 2))
    torch.testing.assert_close(std, r)
    x0, eps = x - t[:, None] * v, x + (1 - t)[:, None] * v
    torch.testing.assert_close(mean, (1 - s)[:, None] * x0 + torch.sqrt(s**2 - r**2)[:, None] * eps)


def wasserstein(x: Tensor, model: GaussianMixture) -> tuple[float, float]:
    """W1 of samples to the exact law, and its expectation's upper bound were they exact samples.

    W1 is the integral of |F_n - F|, and E|F_n - F| <= sqrt(F (1 - F) / n).
    """
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    exact = model.cdf(grid)
    empirical = torch.searchsorted(x.flatten().sort().values, grid, right=True) / len(x)
    floor = torch.trapezoid((exact * (1 - exact) / len(x)).sqrt(), grid)
    return torch.trapezoid((empirical - exact).abs(), grid).item(), floor.item()


@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
@pytest.mark.parametrize(
    "kernel", [*(EulerMaruyama(g) for g in COEFFICIENTS), DDIM(0.0), DDIM(0.5), DDIM(1.0)], ids=str
)
def test_samples_approach_the_exact_law(kernel: Kernel, interpolant: Interpolant) -> None:
    model, n = law(interpolant), 12_000
    x = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    coarse, _ = wasserstein(run(kernel, model, x, 5), model)
    fine, floor = wasserstein(run(kernel, model, x, 150), model)
    # What exact samples would show (0.0145 at most, on average), plus a first-order method's bias, 3 / steps.
    assert fine < floor + 3 / 150
    assert fine < coarse / 2


def test_coefficients_are_their_formulas() -> None:
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    torch.testing.assert_close(Power().g(Linear(), t), 3 * t**2)
    torch.testing.assert_close(Constant(0.7).g(VP(), t), torch.full_like(t, 0.7))
    torch.testing.assert_close(Sigma(2.0).g(VP(), t), 2 * VP().sigma(t))
    torch.testing.assert_close(Memoryless(math.sqrt(0.5)).g(Linear(), t), torch.sqrt(t / (1 - t)))
    torch.testing.assert_close(Memoryless().g(VP(), t), torch.sqrt(0.1 + 19.9 * t))
    ends, capped = torch.tensor([0.0, 0.9, 1.0], dtype=torch.float64), math.sqrt(2 * 0.9 / 0.1)
    torch.testing.assert_close(Memoryless().g(Linear(), ends).tolist(), [0.0, capped, capped])


@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama(), DDIM(0.4)], ids=str)
def test_a_step_is_its_moments_row_by_row(kernel: GaussianKernel) -> None:
    model = law(VP())
    x, z = (torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    t, s = torch.tensor([1.0, 0.6, 0.2]).double(), torch.tensor([0.8, 0.5, 0.0]).double()
    v = model.velocity(x, t)
    mean, std = kernel.moments(VP(), x, v, t, s)
    batch, nfe = finish(kernel.step(VP(), x, v, t, s, z, ask), model)
    assert nfe == kernel.extra_nfe == 0
    assert torch.equal(batch, mean + std[:, None] * z)
    for i in range(3):
        row = slice(i, i + 1)
        alone, _ = finish(kernel.step(VP(), x[row], v[row], t[i], s[i], z[row], ask), model)
        assert torch.equal(alone, batch[row])


@pytest.mark.parametrize("kernel", [EulerMaruyama(), DDIM()], ids=str)
def test_a_stochastic_kernel_refuses_to_go_without_noise(kernel: Kernel) -> None:
    x, t = torch.zeros(2, 1, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    assert kernel.stochastic
    with pytest.raises(ValueError, match=r"noise of shape \(2, 1\), not None"):
        finish(kernel.step(Linear(), x, x, t, t / 2, None, ask), law(Linear()))


@pytest.mark.parametrize("kernel", [Euler(), Heun(), DDIM(0.0)], ids=str)
def test_a_deterministic_kernel_ignores_noise(kernel: Kernel) -> None:
    model, x = law(Linear()), torch.ones(2, 1, dtype=torch.float64)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert not kernel.stochastic
    results = [finish(kernel.step(Linear(), x, -x, t, t / 2, z, ask), model)[0] for z in (None, x)]
    assert torch.equal(*results)


def test_registered_names_construct_and_a_bad_eta_is_refused() -> None:
    assert {name: type(cls()) for name, cls in KERNELS.items()} == KERNELS
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0"):
            DDIM(eta)
