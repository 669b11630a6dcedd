"""The exact model against quadrature, automatic differentiation and itself row by row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.models.mixture.gaussian_mixture import GaussianMixture

INTERPOLANTS = [Linear(), VP(), Cosine(), Polynomial(2)]
every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)


def random_mixture(k: int, d: int, interpolant: Interpolant, seed: int = 0) -> GaussianMixture:
    rng = torch.Generator().manual_seed(seed)
    weights, stds = torch.rand(k, generator=rng), 0.1 + torch.rand(k, generator=rng)
    return GaussianMixture(weights, 2 * torch.randn(k, d, generator=rng), stds, interpolant)


def states(n: int, d: int, seed: int = 1) -> Tensor:
    return 2 * torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every
def test_log_prob_is_that_of_the_noised_mixture(interpolant: Interpolant) -> None:
    model, x = random_mixture(3, 2, interpolant), states(20, 2)
    for t in (0.0, 0.2, 0.9, 1.0):
        alpha, sigma = interpolant.alpha(t), interpolant.sigma(t)
        scale = (alpha**2 * model.stds**2 + sigma**2).sqrt()[:, None].expand(3, 2)
        components = Independent(Normal(alpha * model.means, scale), 1)
        law = MixtureSameFamily(Categorical(model.weights), components)
        expected: Tensor = law.log_prob(x)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(model.log_prob(x, t), expected, rtol=1e-12, atol=1e-12)


@every
@pytest.mark.slow
def test_score_is_the_gradient_of_log_prob(interpolant: Interpolant) -> None:
    model, x = random_mixture(4, 3, interpolant), states(30, 3).requires_grad_()
    for t in (0.0, 1e-6, 0.4, 1.0):
        gradient = torch.autograd.grad(model.log_prob(x, t).sum(), x)[0]
        torch.testing.assert_close(model.score(x.detach(), t), gradient, rtol=1e-10, atol=1e-10)


@every
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95, 1.0])
def test_denoised_and_velocity_are_posterior_means_by_quadrature(interpolant: Interpolant, t: float) -> None:
    model, x = random_mixture(3, 1, interpolant), states(10, 1)
    x0 = torch.linspace(-14, 14, 28_001, dtype=torch.float64)[:, None]
    alpha, sigma = interpolant.alpha(t), interpolant.sigma(t)
    eps = (x[:, 0] - alpha * x0) / sigma
    # The trapezoidal rule on a smooth density that vanishes at the ends converges faster than any power.
    posterior = torch.softmax(model.log_prob(x0)[:, None] - eps**2 / 2, 0)
    velocity = interpolant.alpha_dot(t) * x0 + interpolant.sigma_dot(t) * eps
    torch.testing.assert_close(model.denoised(x, t)[:, 0], (posterior * x0).sum(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.velocity(x, t)[:, 0], (posterior * velocity).sum(0), rtol=1e-9, atol=1e-9)


@every
def test_everything_is_finite_and_continuous_at_the_data_end(interpolant: Interpolant) -> None:
    model, x = random_mixture(3, 2, interpolant), states(10, 2)
    assert torch.equal(model.denoised(x, 0.0), x) or (model.denoised(x, 0.0) - x).abs().max() < 1e-14
    torch.testing.assert_close(model.velocity(x, 0.0), model.velocity(x, 1e-9), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("k", "d"), [(2, 1), (5, 3), (16, 16), (20, 40)])
@every
@pytest.mark.slow
def test_a_row_does_not_see_the_other_rows(interpolant: Interpolant, k: int, d: int) -> None:
    model = random_mixture(k, d, interpolant)
    for rows in (2, 5, 33):
        x = states(rows, d, seed=rows)
        t = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
        for f in (model.velocity, model.score, model.denoised, model.log_prob):
            assert torch.equal(f(x, t), torch.cat([f(x[i : i + 1], t[i : i + 1]) for i in range(rows)]))
            shared = f(x, t[0])
            assert torch.equal(shared, f(x, t[0].expand(rows)))
            assert torch.equal(shared, torch.cat([f(x[i : i + 1], t[0]) for i in range(rows)]))
            assert torch.equal(f(x.flip(0), t.flip(0)).flip(0), f(x, t))


def test_results_keep_the_dtype_of_the_state_and_the_precision_of_float64() -> None:
    model, x = random_mixture(3, 2, Linear()), states(10, 2).float()
    assert torch.equal(model.velocity(x, 0.3), model.velocity(x.double(), 0.3).float())


def test_samples_follow_the_cdf() -> None:
    model, n = random_mixture(3, 1, Linear()), 20_000
    u = model.cdf(model.sample(n, torch.Generator().manual_seed(0))[:, 0]).sort().values
    ks = (u - (torch.arange(n) + 0.5) / n).abs().max() + 0.5 / n
    # Kolmogorov: P(sqrt(n) KS > 1.95) = 0.001.
    assert ks * math.sqrt(n) < 1.95
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    density = torch.autograd.grad(model.cdf(x).sum(), x)[0]
    torch.testing.assert_close(density, model.log_prob(x.detach()[:, None]).exp())


def test_samples_have_the_moments_of_the_mixture() -> None:
    model, n = random_mixture(4, 2, Linear()), 40_000
    x = model.sample(n, torch.Generator().manual_seed(0))
    mean = (model.weights[:, None] * model.means).sum(0)
    second = (model.weights[:, None] * (model.means**2 + model.stds[:, None] ** 2)).sum(0)
    assert ((x.mean(0) - mean).abs() < 4 * x.std(0) / math.sqrt(n)).all()
    assert ((x.square().mean(0) - second).abs() < 4 * x.square().std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_tilt_is_the_reweighted_density_and_its_normalizer_the_missing_constant(
    temperature: float,
) -> None:
    model, a, x = random_mixture(3, 2, VP()), torch.tensor([0.7, -1.2]), states(50, 2)
    expected = model.log_prob(x) + (x * a).sum(-1) / temperature - model.log_normalizer(a, temperature)
    tilted = model.tilted(a, temperature)
    torch.testing.assert_close(tilted.log_prob(x), expected, rtol=1e-12, atol=1e-12)
    assert tilted.interpolant == VP()


def test_wrong_arguments_are_named() -> None:
    one, means = torch.ones(2), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"got shapes \(\(2,\), \(2, 3\), \(1,\)\)"):
        GaussianMixture(one, means, torch.ones(1))
    with pytest.raises(ValueError, match="stds > 0"):
        GaussianMixture(one, means, torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="weights >= 0"):
        GaussianMixture(torch.tensor([1.0, -1.0]), means, one)
    with pytest.raises(ValueError, match="d = 3"):
        GaussianMixture(one, means, one).cdf(torch.zeros(1))
