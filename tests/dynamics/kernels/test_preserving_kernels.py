"""DDIM, Flow-CPS and renoising against the exact laws of point masses and of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from laws import INTERPOLANTS, MEAN, STD, at_noise, carry, gaussian
from torch import Tensor

from rollflow.dynamics.grids import Uniform
from rollflow.dynamics.interpolants import Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, CoefficientsPreserving, FlowCPS, Renoise

KERNELS = [DDIM(0.0), DDIM(0.5), DDIM(1.0), FlowCPS(), FlowCPS(0.3), Renoise()]
every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=str)


@every
@every_kernel
def test_every_marginal_is_kept_where_the_clean_estimate_is_exact(
    interpolant: Interpolant, kernel: CoefficientsPreserving
) -> None:
    """A point mass at MEAN: x_t ~ N(alpha MEAN, sigma^2) at every time of a coarse grid, ends included."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        eps = (x - interpolant.alpha(t) * MEAN) / interpolant.sigma(t)
        return interpolant.alpha_dot(t) * MEAN + interpolant.sigma_dot(t) * eps

    law = at_noise(interpolant, std=0.0)
    for t, s in pairwise(torch.tensor([1.0, 0.93, 0.6, 0.2, 0.01, 0.0], dtype=torch.float64)):
        law = carry(kernel, interpolant, velocity, law, t, s)
        torch.testing.assert_close(law[0], interpolant.alpha(s) * MEAN, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(law[1], interpolant.sigma(s) ** 2, rtol=1e-9, atol=1e-20)


def fresh_std(kernel: CoefficientsPreserving, interpolant: Interpolant, t: Tensor, s: Tensor) -> Tensor:
    """The standard deviation of the fresh noise, by the published formulas."""
    sigma = interpolant.sigma(s)
    match kernel:
        case DDIM(eta):
            ratio = interpolant.alpha(t) * sigma / (interpolant.alpha(s) * interpolant.sigma(t))
            return eta * sigma * torch.sqrt(1 - ratio**2)
        case FlowCPS(n):
            return sigma * math.sin(math.pi * n / 2)
    return sigma


@every
@every_kernel
def test_gaussian_data_have_the_moments_of_the_affine_recursion(
    interpolant: Interpolant, kernel: CoefficientsPreserving
) -> None:
    """With x0 and eps the regressions of data and noise on x_t."""
    law = mean, variance = at_noise(interpolant)
    for t, s in pairwise(Uniform()(12)):
        alpha, sigma, r = interpolant.alpha(t), interpolant.sigma(t), fresh_std(kernel, interpolant, t, s)
        marginal = alpha**2 * STD**2 + sigma**2
        kept = torch.sqrt(interpolant.sigma(s) ** 2 - r**2)
        factor = (interpolant.alpha(s) * alpha * STD**2 + kept * sigma) / marginal
        mean = interpolant.alpha(s) * MEAN + factor * (mean - alpha * MEAN)
        variance = factor**2 * variance + r**2
        law = carry(kernel, interpolant, gaussian(interpolant).velocity, law, t, s)
        torch.testing.assert_close(torch.stack(law), torch.stack((mean, variance)), rtol=1e-9, atol=1e-12)


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


@every_kernel
def test_the_published_formulas_for_linear(kernel: CoefficientsPreserving) -> None:
    t, s = torch.tensor([0.9, 0.5]).double(), torch.tensor([0.6, 0.1]).double()
    x, v = torch.tensor([[0.3], [-2.0]]).double(), torch.tensor([[1.1], [0.4]]).double()
    mean, std = kernel.moments(Linear(), x, v, t, s)
    r = fresh_std(kernel, Linear(), t, s)
    torch.testing.assert_close(std, r)
    x0, eps = x - t[:, None] * v, x + (1 - t)[:, None] * v
    kept = torch.sqrt((s**2 - r**2).clamp(min=0))
    torch.testing.assert_close(mean, (1 - s)[:, None] * x0 + kept[:, None] * eps)


@every
@pytest.mark.parametrize("kernel", [FlowCPS(), FlowCPS(0.5), Renoise()], ids=str)
@pytest.mark.slow
def test_a_constant_share_of_fresh_noise_keeps_a_part_of_the_variance(
    interpolant: Interpolant, kernel: FlowCPS | Renoise
) -> None:
    """(1 + cos(pi n / 2)) / 2 of it, ever more exactly as the steps shrink: what is lost does not come back."""
    kept = (1 + math.cos(math.pi * (kernel.n if isinstance(kernel, FlowCPS) else 1.0) / 2)) / 2

    def error(steps: int) -> float:
        law = at_noise(interpolant)
        for t, s in pairwise(Uniform()(steps)):
            law = carry(kernel, interpolant, gaussian(interpolant).velocity, law, t, s)
        assert law[0].item() == pytest.approx(MEAN, abs=1e-12)
        return abs(law[1].item() / STD**2 - kept)

    errors = [error(steps) for steps in (25, 100, 400)]
    assert errors[2] < errors[1] / 2 < errors[0] / 4
    assert errors[2] < 0.025


def test_flow_cps_at_its_ends() -> None:
    t, s = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    x, v = torch.tensor([[0.3], [-2.0]]).double(), torch.tensor([[1.1], [0.4]]).double()
    for one, other in ((FlowCPS(0.0), DDIM(0.0)), (FlowCPS(1.0), Renoise())):
        assert one.stochastic == other.stochastic
        for mine, theirs in zip(one.moments(Linear(), x, v, t, s), other.moments(Linear(), x, v, t, s), strict=True):
            assert torch.equal(mine, theirs)


def test_shares_out_of_range_are_refused() -> None:
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="eta of DDIM"):
            DDIM(share)
        with pytest.raises(ValueError, match="n of FlowCPS"):
            FlowCPS(share)
