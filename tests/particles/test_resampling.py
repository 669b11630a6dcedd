"""Resampling: unbiased, nothing of weight 0 survives, and the edges of floating point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollflow.particles.resampling import RESAMPLING, SSP, Multinomial, Resampling, Residual, Stratified, Systematic

SCHEMES = [Multinomial(), Stratified(), Systematic(), Residual(), SSP()]
LAST = 1 - 2.0**-53  # the largest that a uniform draw can be
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)


def weights_of(values: list[float]) -> Tensor:
    w = torch.tensor(values, dtype=torch.float64)
    return w / w.sum()


some_weights = (
    st.lists(st.just(0.0) | st.floats(1e-3, 1), min_size=1, max_size=7).filter(lambda values: sum(values) > 0)
).map(weights_of)


def offspring(scheme: Resampling, weights: Tensor, count: int, repeats: int, seed: int = 0) -> Tensor:
    """(repeats, N) float64 how often each particle was kept."""
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(repeats, scheme.draws(len(weights), count), dtype=torch.float64, generator=generator)
    rows = [torch.bincount(scheme(weights, u, count), minlength=len(weights)) for u in uniforms]
    return torch.stack(rows).double()


def test_every_registered_scheme_is_tested() -> None:
    assert {scheme.name: type(scheme) for scheme in SCHEMES} == dict(RESAMPLING)


@every_scheme
@settings(max_examples=12)
@given(some_weights, st.integers(1, 9))
@pytest.mark.slow
def test_offspring_are_expected_to_be_count_times_weight(scheme: Resampling, weights: Tensor, count: int) -> None:
    """Within 4 standard errors: the scheme's own where offspring are floor or ceil, else those of independent draws."""
    repeats = 400
    kept = offspring(scheme, weights, count, repeats)
    expected = count * weights
    fraction = expected - (expected + 1e-9).floor()
    narrow = isinstance(scheme, Systematic | SSP)
    variance = fraction * (1 - fraction) if narrow else expected * (1 - weights)
    assert (kept.sum(1) == count).all()
    assert (kept[:, weights == 0] == 0).all()
    assert ((kept.mean(0) - expected).abs() <= 4 * (variance.clamp(min=0) / repeats).sqrt() + 1e-6).all()
    if narrow:
        assert ((kept - expected).abs() < 1 + 1e-9).all()
    if isinstance(scheme, Residual):
        assert (kept >= (expected - 1e-9).floor()).all()


@given(some_weights, st.integers(1, 9))
@pytest.mark.slow
def test_systematic_is_exact_over_its_one_uniform(weights: Tensor, count: int) -> None:
    """The integral over u, by the midpoint rule, whose error is a point of the grid a boundary."""
    grid = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    kept = [torch.bincount(Systematic()(weights, u[None], count), minlength=len(weights)) for u in grid]
    mean = torch.stack(kept).double().mean(0)
    torch.testing.assert_close(mean, count * weights, rtol=0, atol=2 / 200)


@every_scheme
@given(some_weights, st.integers(1, 9), st.data())
@example(weights_of([0.0, 0.0, 1.0, 0.0]), 5, None)
@example(torch.full((10,), 0.1, dtype=torch.float64), 7, None)  # their sum ends at 1 - 2^-53
@example(weights_of([1.0, 1e-300, 1e-300]), 3, None)
@example(weights_of([1e-17, 1.0, 1e-17, 0.0]), 4, None)
@pytest.mark.slow
def test_only_the_living_are_kept_at_the_ends_of_the_unit_interval(
    scheme: Resampling, weights: Tensor, count: int, data: st.DataObject | None
) -> None:
    n = scheme.draws(len(weights), count)
    mixed = [0.0, LAST] if data is None else data.draw(st.lists(st.sampled_from([0.0, LAST]), min_size=1, max_size=3))
    for ends in ([0.0], [LAST], mixed):
        uniforms = torch.tensor((ends * (n + 1))[:n], dtype=torch.float64)
        ancestors = scheme(weights, uniforms, count)
        assert ancestors.shape == (count,)
        assert ancestors.dtype == torch.int64
        assert (weights[ancestors] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Systematic(), Residual(), SSP()], ids=lambda scheme: scheme.name)
@given(st.integers(1, 120), st.floats(0.001, 0.999))
@example(49, 0.5)  # 49 * (1 / 49) < 1
def test_equal_weights_change_nothing(scheme: Resampling, n: int, u: float) -> None:
    uniforms = torch.full((scheme.draws(n, n),), u, dtype=torch.float64)
    kept = scheme(torch.full((n,), 1 / n, dtype=torch.float64), uniforms, n)
    assert kept.tolist() == list(range(n))


def test_multinomial_inverts_the_cumulated_weights() -> None:
    weights, uniforms = weights_of([1, 0, 2, 1]), torch.tensor([0.9, 0.25, 0.0, 0.74, 0.75], dtype=torch.float64)
    assert Multinomial()(weights, uniforms, 5).tolist() == [3, 2, 0, 2, 3]


def test_strata_are_drawn_from_one_by_one() -> None:
    """The points are (0.9, 1.1, 2.5) / 3 on the cumulated weights (0.5, 1), or (0.9, 1.9, 2.9) / 3 with one uniform."""
    weights = weights_of([1, 1])
    assert Stratified()(weights, torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64), 3).tolist() == [0, 0, 1]
    assert Systematic()(weights, torch.tensor([0.9], dtype=torch.float64), 3).tolist() == [0, 1, 1]


def test_residual_keeps_whole_copies_and_draws_the_rest() -> None:
    """4 w = (2.4, 1.2, 0.4): copies (2, 1, 0), and one more from the fractions, by the first uniform."""
    weights = weights_of([6, 3, 1])
    for u, extra in ((0.39, 0), (0.41, 1), (0.61, 2)):
        uniforms = torch.tensor([u, 0.0, 0.0, 0.0], dtype=torch.float64)
        assert Residual()(weights, uniforms, 4).tolist() == [0, 0, 1, extra]


def test_ssp_settles_fractions_in_pairs() -> None:
    """2 w = (0.5, 0.8, 0.7): the first pair has 1.3, whole with odds 0.2 : 0.5; 0.3 is left for the last to meet."""
    weights = weights_of([0.5, 0.8, 0.7])
    kept = {
        (first, second): SSP()(weights, torch.tensor([first, second], dtype=torch.float64), 2).tolist()
        for first in (0.28, 0.29)
        for second in (0.29, 0.31)
    }
    assert kept == {(0.28, 0.29): [0, 1], (0.28, 0.31): [0, 2], (0.29, 0.29): [0, 1], (0.29, 0.31): [1, 2]}


def test_ssp_is_consistent_in_every_order_and_systematic_is_not() -> None:
    """Half an offspring each: one uniform takes all particles of even index or none, pairs take one of two."""
    weights = torch.full((8,), 1 / 8, dtype=torch.float64)
    variance = {
        scheme.name: float(offspring(scheme, weights, 4, 500)[:, ::2].sum(1).var()) for scheme in (Systematic(), SSP())
    }
    assert variance["systematic"] == pytest.approx(4, rel=0.1)
    assert variance["ssp"] < 1.2  # the sum of their own variances is 1


def test_less_variance_than_independent_draws() -> None:
    weights = weights_of([0.05, 0.4, 0.15, 0.3, 0.1])
    spread = {scheme.name: float(offspring(scheme, weights, 8, 400).var(0).sum()) for scheme in SCHEMES}
    independent = float((8 * weights * (1 - weights)).sum())
    assert spread["multinomial"] == pytest.approx(independent, rel=0.15)
    assert all(spread[scheme.name] < 0.7 * independent for scheme in SCHEMES[1:])


@every_scheme
def test_wrong_arguments(scheme: Resampling) -> None:
    weights = weights_of([1, 2, 1])
    uniforms = torch.zeros(scheme.draws(3, 4), dtype=torch.float64)
    with pytest.raises(ValueError, match="sum to 1"):
        scheme(2 * weights, uniforms, 4)
    with pytest.raises(ValueError, match="sum to 1"):
        scheme(torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64), uniforms, 4)
    with pytest.raises(ValueError, match=f"{scheme.name} needs {len(uniforms)} uniforms, not {len(uniforms) + 1}"):
        scheme(weights, torch.zeros(len(uniforms) + 1, dtype=torch.float64), 4)
