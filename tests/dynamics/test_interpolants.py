"""Interpolants against automatic differentiation, their own inverses and the exact ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.interpolants import INTERPOLANTS, VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.errors import BadSetting

ALL = [Linear(), VP(), VP(0.5, 0.5), Cosine(), Polynomial(1), Polynomial(2), Polynomial(3.5)]
every = pytest.mark.parametrize("interpolant", ALL, ids=str)
quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)

INTERIOR = torch.tensor([1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.5, 0.77, 0.9, 1 - 1e-3, 1 - 1e-6], dtype=torch.float64)


def derivative(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    t = t.clone().requires_grad_()
    return torch.autograd.grad(f(t).sum(), t)[0]


@every
def test_derivatives_match_autograd(interpolant: Interpolant) -> None:
    def half_variance(t: Tensor) -> Tensor:
        return interpolant.sigma(t) ** 2 / 2

    for closed, function in (
        (interpolant.alpha_dot, interpolant.alpha),
        (interpolant.sigma_dot, interpolant.sigma),
        (interpolant.sigma_sigma_dot, half_variance),
    ):
        torch.testing.assert_close(closed(INTERIOR), derivative(function, INTERIOR), rtol=1e-10, atol=1e-14)


@every
def test_derivatives_match_one_sided_differences_at_the_ends(interpolant: Interpolant) -> None:
    h = 1e-6

    def variance(t: Tensor) -> Tensor:
        return interpolant.sigma(t) ** 2

    for f, slope in (
        (interpolant.alpha, interpolant.alpha_dot),
        (variance, lambda t: 2 * interpolant.sigma_sigma_dot(t)),
    ):
        for end, sign in ((0.0, 1.0), (1.0, -1.0)):
            t = torch.tensor([end, end + sign * h, end + 2 * sign * h], dtype=torch.float64)
            a, b, c = f(t)
            one_sided = sign * (-3 * a + 4 * b - c) / (2 * h)
            # The error of a second-order difference is third derivative h^2 / 3, plus rounding 4e-16 / h.
            assert slope(t[:1]).item() == pytest.approx(one_sided.item(), abs=2e-9)


@every
def test_the_ends_are_exact(interpolant: Interpolant) -> None:
    assert interpolant.alpha(0.0) == 1
    assert interpolant.sigma(0.0) == 0
    assert interpolant.log_snr(0.0) == math.inf
    assert interpolant.sigma_dot(0.0) >= 0
    assert interpolant.sigma_sigma_dot(0.0).isfinite()
    zero = interpolant.time_at_log_snr(math.inf)
    # A negative zero would turn infinite rates around.
    assert zero == 0
    assert not torch.signbit(zero)
    assert interpolant.time_at_log_snr(-math.inf) == 1
    assert interpolant.time_at_log_snr(interpolant.log_snr(1.0)) == pytest.approx(1.0, abs=1e-15)
    if not isinstance(interpolant, VP):
        assert interpolant.alpha(1.0) == 0
        assert interpolant.sigma(1.0) == 1
        assert interpolant.log_snr(1.0) == -math.inf


def test_vp_has_its_published_constants_and_clamps_what_is_noisier_than_its_end() -> None:
    vp = VP()
    assert vp.alpha(1.0).item() == pytest.approx(math.exp(-(20 - 0.1) / 4 - 0.1 / 2), rel=1e-14)
    assert vp.sigma(0.5).item() == pytest.approx(math.sqrt(1 - math.exp(-(19.9 / 8 + 0.05))), rel=1e-14)
    assert vp.time_at_log_snr(vp.log_snr(1.0) - 3) == 1
    assert vp.sigma_dot(0.0) == math.inf
    # sigma^2 ~ t beta_min near 0, where 1 - exp(-T) would round to 0.
    assert vp.sigma(1e-20).item() == pytest.approx(math.sqrt(1e-21), rel=1e-12)


@every
@given(t=st.floats(1e-9, 1 - 1e-9))
@quick
@pytest.mark.slow
def test_time_survives_the_round_trip(interpolant: Interpolant, t: float) -> None:
    assert interpolant.time_at_log_snr(interpolant.log_snr(t)).item() == pytest.approx(t, rel=1e-12, abs=1e-12)


@every
@given(log_snr=st.floats(-18.0, 60.0))
@quick
def test_log_snr_survives_the_round_trip(interpolant: Interpolant, log_snr: float) -> None:
    reachable = max(log_snr, interpolant.log_snr(1.0).item())
    t = interpolant.time_at_log_snr(log_snr)
    # Near t = 1 the rounding of t, 1e-16, is a share exp(9) = 8e3 larger of 1 - t.
    assert interpolant.log_snr(t).item() == pytest.approx(reachable, abs=2e-11)


@every
@given(t=st.floats(0.0, 1 - 1e-6), gap=st.floats(1e-7, 1.0))
@quick
def test_log_snr_falls(interpolant: Interpolant, t: float, gap: float) -> None:
    assert interpolant.log_snr(t) > interpolant.log_snr(min(t + gap, 1.0))


@every
def test_floats_and_float32_are_computed_in_float64(interpolant: Interpolant) -> None:
    exact = interpolant.log_snr(torch.tensor(0.25, dtype=torch.float64))
    for t in (0.25, torch.tensor(0.25, dtype=torch.float32)):
        result = interpolant.log_snr(t)
        assert result.dtype == torch.float64
        assert torch.equal(result, exact)


def test_polynomials_run_the_linear_path_on_another_clock() -> None:
    assert torch.equal(Polynomial(1).sigma(INTERIOR), Linear().sigma(INTERIOR))
    torch.testing.assert_close(Polynomial(3).alpha(INTERIOR), Linear().alpha(INTERIOR**3), rtol=1e-9, atol=0)


def test_registered_names_construct_and_bad_settings_are_refused() -> None:
    assert {name: type(cls()) for name, cls in INTERPOLANTS.items()} == INTERPOLANTS
    for build in (
        lambda: VP(0.0),
        lambda: VP(2.0, 1.0),
        lambda: Polynomial(0.5),
        lambda: Polynomial(math.nan),
    ):
        with pytest.raises(BadSetting, match="must be a finite number"):
            build()
