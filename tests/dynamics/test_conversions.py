"""Conversions against the exact score, against the paper's formulas, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.conversions import (
    Conversion,
    broadcast_like,
    denoised_from_velocity,
    noise_from_velocity,
    score_from_velocity,
    velocity_from_denoised,
    velocity_from_noise,
    velocity_from_score,
)
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.models.mixture.gaussian_mixture import GaussianMixture

INTERPOLANTS = [Linear(), VP(), Cosine(), Polynomial(3)]
every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
PAIRS = [(source, target) for source in INTERPOLANTS for target in INTERPOLANTS if source != target]
every_pair = pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
TIMES = torch.tensor([1e-4, 0.03, 0.2, 0.5, 0.8, 0.97, 0.9999], dtype=torch.float64)


def mixture(interpolant: Interpolant) -> GaussianMixture:
    means = torch.tensor([[-1.5, 0.5], [1.0, -1.0], [0.5, 2.0]])
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), means, torch.tensor([0.3, 0.6, 0.2]), interpolant)


def line(interpolant: Interpolant) -> GaussianMixture:
    return GaussianMixture(
        torch.tensor([0.35, 0.65]), torch.tensor([[-1.0], [1.2]]), torch.tensor([0.4, 0.5]), interpolant
    )


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@every
def test_velocity_tells_the_score_the_clean_estimate_and_the_noise(interpolant: Interpolant) -> None:
    model, x, t = mixture(interpolant), normal(len(TIMES), 2), TIMES
    v = model.velocity(x, t)
    score = torch.autograd.grad(model.log_prob(x.requires_grad_(), t).sum(), x)[0]
    x = x.detach()
    eps = -broadcast_like(interpolant.sigma(t), x) * score
    torch.testing.assert_close(noise_from_velocity(interpolant, v, x, t), eps, rtol=1e-9, atol=1e-13)
    # The score is the noise over sigma, and so is its rounding.
    rounding = broadcast_like(1e-14 / interpolant.sigma(t), x)
    assert ((score_from_velocity(interpolant, v, x, t) - score).abs() < rounding + 1e-9 * score.abs()).all()
    torch.testing.assert_close(denoised_from_velocity(interpolant, v, x, t), model.denoised(x, t), rtol=1e-9, atol=1e-9)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("of", [denoised_from_velocity, noise_from_velocity, score_from_velocity])
def test_what_is_remembered_at_a_float_is_what_a_tensor_gives(
    interpolant: Interpolant, of: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    x, v = (part.to(dtype) for part in (normal(3, 2), normal(3, 2) + 1))
    for t in TIMES:
        of_tensor = of(interpolant, v, x, t)
        for _ in range(2):
            assert torch.equal(of(interpolant, v, x, float(t)), of_tensor)
        assert torch.equal(of(interpolant, v, x, t.expand(3)), of_tensor)
        assert not torch.equal(of(interpolant, v, x, float(t) / 2), of_tensor)


@every
def test_the_general_formulas_are_the_papers(interpolant: Interpolant) -> None:
    x, u, t = normal(len(TIMES), 3), normal(len(TIMES), 3) + 1, TIMES
    a, s, a_dot, s_dot = (
        broadcast_like(f(t), x)
        for f in (interpolant.alpha, interpolant.sigma, interpolant.alpha_dot, interpolant.sigma_dot)
    )
    score = (a * u - a_dot * x) / (a_dot * s - a * s_dot) / s
    torch.testing.assert_close(score_from_velocity(interpolant, u, x, t), score, rtol=1e-9, atol=1e-9)
    x0 = (s * u - s_dot * x) / (a_dot * s - a * s_dot)
    torch.testing.assert_close(denoised_from_velocity(interpolant, u, x, t), x0, rtol=1e-9, atol=1e-9)
    eps = noise_from_velocity(interpolant, u, x, t)
    torch.testing.assert_close(a * x0 + s * eps, x, rtol=1e-9, atol=1e-8)


def test_linear_formulas() -> None:
    x, u, t = normal(7, 2), normal(7, 2) - 1, TIMES[:, None]
    torch.testing.assert_close(denoised_from_velocity(Linear(), u, x, TIMES), x - t * u)
    torch.testing.assert_close(noise_from_velocity(Linear(), u, x, TIMES), x + (1 - t) * u)
    torch.testing.assert_close(score_from_velocity(Linear(), u, x, TIMES), -((1 - t) * u + x) / t)


@every
@pytest.mark.parametrize(
    ("there", "back"),
    [
        (denoised_from_velocity, velocity_from_denoised),
        (noise_from_velocity, velocity_from_noise),
        (score_from_velocity, velocity_from_score),
    ],
)
def test_round_trips(interpolant: Interpolant, there: Callable[..., Tensor], back: Callable[..., Tensor]) -> None:
    x, u, t = normal(5, 2), normal(5, 2) + 1, TIMES[1:-1]
    torch.testing.assert_close(back(interpolant, there(interpolant, u, x, t), x, t), u, rtol=1e-8, atol=1e-8)


@every
def test_the_ends_are_safe(interpolant: Interpolant) -> None:
    model, x = mixture(interpolant), normal(6, 2)
    v = model.velocity(x, 0.0)
    torch.testing.assert_close(denoised_from_velocity(interpolant, v, x, 0.0), x)
    torch.testing.assert_close(noise_from_velocity(interpolant, v, x, 0.0), torch.zeros_like(x))
    v = model.velocity(x, 1.0)
    torch.testing.assert_close(denoised_from_velocity(interpolant, v, x, 1.0), model.denoised(x, 1.0))
    torch.testing.assert_close(score_from_velocity(interpolant, v, x, 1.0), model.score(x, 1.0))
    torch.testing.assert_close(velocity_from_denoised(interpolant, model.denoised(x, 1.0), x, 1.0), v)
    score = model.score(x, 0.0)
    torch.testing.assert_close(velocity_from_score(interpolant, score, x, 0.0), model.velocity(x, 0.0))
    if isinstance(interpolant, VP):
        torch.testing.assert_close(score_from_velocity(interpolant, model.velocity(x, 0.0), x, 0.0), score)


def test_coefficients_are_computed_in_float64_and_cast_last() -> None:
    x, u = normal(4, 3).float(), normal(4, 3).float() + 1
    t = torch.tensor(1e-3, dtype=torch.float64)
    vp = VP()
    exact = denoised_from_velocity(vp, u.double(), x.double(), t)
    result = denoised_from_velocity(vp, u, x, t)
    assert result.dtype == torch.float32
    # Three float32 roundings of terms no larger than about 3.
    assert (result - exact).abs().max() < 3 * 3 * 6e-8
    rows = denoised_from_velocity(vp, u, x, t.expand(4))
    assert torch.equal(rows, result)


@every_pair
def test_the_same_noise_level_is_reached_by_one_rescaling(source: Interpolant, target: Interpolant) -> None:
    conversion, s = Conversion(source, target), torch.cat([TIMES, torch.zeros(1, dtype=torch.float64)])
    s = s[target.log_snr(s) > source.log_snr(1.0)]
    t, c = conversion.time(s), conversion.scale(s)
    torch.testing.assert_close(c * source.alpha(t), target.alpha(s), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(c * source.sigma(t), target.sigma(s), rtol=1e-11, atol=1e-14)
    x = normal(len(s), 3)
    torch.testing.assert_close(conversion.to_target(conversion.to_source(x, s), s), x)
    torch.testing.assert_close(conversion.to_target(x, s), broadcast_like(c, x) * x)


@every_pair
def test_the_ends_of_a_conversion_are_exact(source: Interpolant, target: Interpolant) -> None:
    conversion = Conversion(source, target)
    assert conversion.time(0.0) == 0
    assert conversion.scale(0.0) == 1
    if not isinstance(target, VP):
        assert conversion.time(1.0) == 1
        assert conversion.scale(1.0).item() == pytest.approx(1 / source.sigma(1.0).item(), rel=1e-15)


def test_a_vp_chain_starts_a_linear_model_just_below_one() -> None:
    conversion, vp = Conversion(Linear(), VP()), VP()
    ends = vp.alpha(1.0) + vp.sigma(1.0)
    assert conversion.time(1.0).item() == pytest.approx((vp.sigma(1.0) / ends).item(), rel=1e-14)
    assert conversion.time(1.0) < 1
    assert conversion.scale(1.0).item() == pytest.approx(ends.item(), rel=1e-14)


@every_pair
def test_velocity_is_the_papers_formula_and_the_targets_own(source: Interpolant, target: Interpolant) -> None:
    conversion = Conversion(source, target)
    s = torch.tensor([0.02, 0.1, 0.4, 0.7, 0.95], dtype=torch.float64, requires_grad=True)
    x_bar = normal(5, 2)
    c, t = conversion.scale(s), conversion.time(s)
    c_dot, t_dot = (torch.autograd.grad(f.sum(), s, retain_graph=True)[0] for f in (c, t))
    s, c, t = s.detach(), c.detach()[:, None], t.detach()
    u = mixture(source).velocity(x_bar / c, t)
    paper = c_dot[:, None] / c * x_bar + c * t_dot[:, None] * u
    result = conversion.velocity(u, x_bar, s)
    torch.testing.assert_close(result, paper, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(result, mixture(target).velocity(x_bar, s), rtol=1e-9, atol=1e-9)


@every_pair
@pytest.mark.slow
def test_the_ode_lands_on_the_same_sample_after_conversion(source: Interpolant, target: Interpolant) -> None:
    """In one dimension the flow is the increasing map between the marginals: its end is known exactly."""
    conversion, model, law = Conversion(source, target), line(source), line(target)
    x_bar = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    alpha, sigma = target.alpha(1.0), target.sigma(1.0)
    start = GaussianMixture(law.weights, alpha * law.means, (alpha**2 * law.stds**2 + sigma**2).sqrt())

    def error(steps: int) -> float:
        x = x_bar
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        for s, s_next in pairwise(times):
            u = model.velocity(conversion.to_source(x, s), conversion.time(s))
            x = x + conversion.velocity(u, x, s) * (s_next - s)
        return (law.cdf(x) - start.cdf(x_bar)).abs().max().item()

    coarse, fine = error(100), error(200)
    assert coarse < 0.02
    assert 0.4 < fine / coarse < 0.6


@every
def test_the_identity_conversion_is_exact_to_the_last_bit(interpolant: Interpolant) -> None:
    conversion, x, u = Conversion(interpolant, interpolant), normal(7, 3), normal(7, 3) + 1
    assert torch.equal(conversion.time(TIMES), TIMES)
    assert torch.equal(conversion.to_source(x, TIMES), x)
    assert torch.equal(conversion.to_target(x, TIMES), x)
    assert torch.equal(conversion.velocity(u, x, TIMES), u)
    assert conversion.scale(1.0) == 1
