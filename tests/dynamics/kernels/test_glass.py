"""GLASS against the exact transition of Gaussians and mixtures, and against its published matrix form."""

from __future__ import annotations

import math

import pytest
import torch
from laws import INTERPOLANTS, MEAN, STD, gaussian, lopsided, slope
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, GLASS, FlowCPS, GaussianKernel
from rollflow.engine import Engine, Job, Task
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN
from rollflow.testing.laws import ask, finish

every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
every_rho = pytest.mark.parametrize("rho", [None, 0.0, 0.6])
every_target = pytest.mark.parametrize("s", [0.35, 0.0])
T = torch.tensor(0.7, dtype=torch.float64)
X = 0.4


def correlation(interpolant: Interpolant, s: Tensor, rho: float | None) -> Tensor:
    """Of the noises at T and s: that of the posterior of DDPM where none is given."""
    if rho is not None:
        return torch.tensor(rho, dtype=torch.float64)
    return interpolant.alpha(T) * interpolant.sigma(s) / (interpolant.alpha(s) * interpolant.sigma(T))


def transition(model: GaussianMixture, s: Tensor, rho: float | None) -> GaussianMixture:
    """The exact law of x_s given x_T = X: by Bayes on x0, then a Gaussian of x_s given x_T and x0."""
    interpolant, r = model.interpolant, correlation(model.interpolant, s, rho)
    alpha, sigma = interpolant.alpha(T), interpolant.sigma(T)
    variance = alpha**2 * model.stds**2 + sigma**2
    residual = X - alpha * model.means[:, 0]
    weights = torch.softmax(model.weights.log() - residual**2 / (2 * variance) - variance.log() / 2, 0)
    x0, x0_variance = (
        model.means[:, 0] + alpha * model.stds**2 / variance * residual,
        model.stds**2 * sigma**2 / variance,
    )
    gain = interpolant.alpha(s) - r * interpolant.sigma(s) / sigma * alpha
    means = r * interpolant.sigma(s) / sigma * X + gain * x0
    stds = torch.sqrt(gain**2 * x0_variance + interpolant.sigma(s) ** 2 * (1 - r**2))
    return GaussianMixture(weights, means[:, None], stds)


def draw(kernel: GLASS, model: GaussianMixture, s: Tensor, z: Tensor) -> Tensor:
    """x_s of x_T = X for each of the noises z (B,)."""
    x = torch.full_like(z, X)[:, None]
    step = kernel.step(model.interpolant, x, model.velocity(x, T), T, s, z[:, None], ask)
    return finish(step, model)[0][:, 0]


@every
@every_rho
@every_target
@pytest.mark.slow
def test_mean_and_deviation_of_a_gaussian_transition(interpolant: Interpolant, rho: float | None, s: float) -> None:
    """The velocity is affine, and so is the transition in its noise, so that two draws tell its moments.

    The mean is exact from the first inner step on; the deviation is so to first order.
    """
    model, target = gaussian(interpolant), torch.tensor(s, dtype=torch.float64)
    exact = transition(model, target, rho)

    def error(steps: int) -> float:
        centre, above = draw(GLASS(steps, rho), model, target, torch.tensor([0.0, 1.0], dtype=torch.float64))
        torch.testing.assert_close(centre, exact.means[0, 0], rtol=1e-12, atol=1e-12)
        return float((above - centre - exact.stds[0]).abs())

    errors = [error(steps) for steps in (1, 16, 32, 64, 128)]
    assert errors[-1] < 1 / 128
    assert slope(errors[1:]) == pytest.approx(1.0, abs=0.15)


@every
@every_rho
@every_target
@pytest.mark.slow
def test_a_mixture_transition_comes_out_exact(interpolant: Interpolant, rho: float | None, s: float) -> None:
    """In one dimension the inner flow is the increasing map from the noise to the exact transition."""
    model, target = lopsided(interpolant), torch.tensor(s, dtype=torch.float64)
    exact, z = transition(model, target, rho), torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(steps: int) -> float:
        return float((exact.cdf(draw(GLASS(steps, rho), model, target, z)) - torch.special.ndtr(z)).abs().max())

    errors = [error(steps) for steps in (16, 32, 64, 128)]
    assert errors[-1] < 1 / 128
    assert slope(errors) == pytest.approx(1.0, abs=0.15)


@every
@every_target
@pytest.mark.parametrize(
    ("rho", "other"), [(None, DDIM(1.0)), (math.cos(math.pi * 0.4), FlowCPS(0.8))], ids=["ddim", "cps"]
)
def test_a_single_inner_step_is_a_known_kernel(
    interpolant: Interpolant, s: float, rho: float | None, other: GaussianKernel
) -> None:
    x, z = torch.tensor([[0.4], [-1.3]]).double(), torch.tensor([[-0.7], [1.9]]).double()
    for t in (torch.tensor(1.0).double(), T):
        v = lopsided(interpolant).velocity(x, t)
        given = interpolant, x, v, t, torch.tensor(s).double(), z, ask
        (mine, nfe), (theirs, _) = (finish(k.step(*given), lopsided(interpolant)) for k in (GLASS(1, rho), other))
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        assert nfe == GLASS(1).extra_nfe == 0


@every_rho
def test_the_published_matrix_form(rho: float | None) -> None:
    """Linear, in data time tau = 1 - t and for y = r + gamma x, its evaluation at q = 0 made, not taken over."""
    m, model, s = 5, lopsided(Linear()), torch.tensor(0.35, dtype=torch.float64)
    z = torch.tensor([-1.0, 0.2, 1.4], dtype=torch.float64)
    al, sg, al_s, sg_s, r = 1 - T, T, 1 - s, s, correlation(Linear(), s, rho)
    gamma, fresh = r * sg_s / sg, sg_s * torch.sqrt(1 - r**2)
    y = gamma * X + z
    for i in range(m):
        q = i / m
        a, b, a_dot, b_dot = q * (al_s - gamma * al), (1 - q) + q * fresh, al_s - gamma * al, fresh - 1
        mu = torch.stack([al, a + gamma * al])
        c = torch.stack([sg**2, gamma * sg**2, gamma * sg**2, b**2 + gamma**2 * sg**2]).reshape(2, 2)
        row = torch.linalg.solve(c, mu)
        statistic = (row[0] * X + row[1] * y) / (row @ mu)
        tau = 1 / (1 + torch.sqrt(1 / (row @ mu)))
        z0 = model.denoised((tau * statistic)[:, None], 1 - tau)[:, 0]
        y = y + (b_dot / b * y + (a_dot - a * b_dot / b) * z0 - gamma * b_dot / b * X) / m
    torch.testing.assert_close(draw(GLASS(m, rho), model, s, z), y, rtol=1e-10, atol=1e-10)


@every
def test_rows_go_their_own_ways_and_pay_alike(interpolant: Interpolant) -> None:
    kernel, model = GLASS(3), lopsided(interpolant)
    x, z = (torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    t, s = torch.tensor([1.0, 0.6, 0.2]).double(), torch.tensor([0.8, 0.5, 0.0]).double()
    v = model.velocity(x, t)
    batch, nfe = finish(kernel.step(interpolant, x, v, t, s, z, ask), model)
    assert nfe == 3 * kernel.extra_nfe == 6
    for i in range(3):
        row = slice(i, i + 1)
        alone, _ = finish(kernel.step(interpolant, x[row], v[row], t[i], s[i], z[row], ask), model)
        assert torch.equal(alone, batch[row])


def test_the_state_keeps_its_precision() -> None:
    """Coefficients are computed in float64, whatever the state is in."""
    kernel, model, s = GLASS(4), lopsided(VP()), torch.tensor(0.35, dtype=torch.float64)
    z = torch.tensor([-1.0, 0.2, 1.4], dtype=torch.float64)
    single = draw(kernel, model, s, z.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), draw(kernel, model, s, z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interpolant", [Linear(), VP(), Cosine()], ids=str)
def test_what_is_declared_is_spent(line: ToyModel, toy_reward: ToyReward, interpolant: Interpolant) -> None:
    """And a search asks through its own conversion, as for any other velocity."""
    sampler = Sampler(interpolant, GLASS(3), steps=4)
    nfe = 3 * BestOfN().smallest_nfe(sampler.bind(line)) + 1
    (result,) = Engine().run([Job(Task(line, "left", toy_reward), BestOfN(), nfe, sampler=sampler)])
    assert sampler.bind(line).child_nfe == 3
    assert result.spent.nfe == BestOfN().cost(sampler.bind(line), nfe).nfe == nfe - 1


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="inner steps of GLASS must be a whole number >= 1, not 0"):
        GLASS(0)
    for rho in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="rho of GLASS must be a finite number"):
            GLASS(rho=rho)


def test_the_exact_transition_has_the_marginal_of_the_flow() -> None:
    """The yardstick itself: of Gaussian data, mean and variance of x_s are those of the interpolant for any rho."""
    s, alpha, sigma = torch.tensor(0.35).double(), Linear().alpha(T), Linear().sigma(T)
    for rho in (None, 0.0, 0.6):
        law = transition(gaussian(Linear()), s, rho)
        slope_in_x = correlation(Linear(), s, rho) * s / T  # gamma, and what x0's regression on x_T adds
        gain = (1 - s) - slope_in_x * alpha
        variance = alpha**2 * STD**2 + sigma**2
        slope_in_x = slope_in_x + gain * alpha * STD**2 / variance
        torch.testing.assert_close(law.means[0, 0] - slope_in_x * (X - alpha * MEAN), (1 - s) * MEAN)
        torch.testing.assert_close(law.stds[0] ** 2 + slope_in_x**2 * variance, (1 - s) ** 2 * STD**2 + s**2)
