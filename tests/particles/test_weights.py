"""Importance weights: exact in log space, whatever their size."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.particles.weights import ess, log_mean, normalised

INF = math.inf
log_weights = st.lists(st.floats(-20, 20), min_size=1, max_size=8).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@given(log_weights, st.sampled_from([0.0, -1e6, 1e6]))
def test_the_plain_formulas_hold_at_every_scale(log_w: Tensor, shift: float) -> None:
    """exp would overflow, or be 0, at the outer scales."""
    w = log_w.exp()
    assert log_mean(log_w + shift) == pytest.approx(math.log(w.mean()) + shift, rel=1e-12, abs=1e-12)
    torch.testing.assert_close(normalised(log_w + shift), w / w.sum(), rtol=1e-7, atol=0)
    assert ess(log_w + shift) == pytest.approx(float(w.sum() ** 2 / (w * w).sum()), rel=1e-7)


@pytest.mark.parametrize("n", [1, 3, 7, 49, 1000])
@pytest.mark.parametrize("value", [0.0, 0.1, -745.3, 800.7])
def test_equal_weights_are_worth_exactly_their_number(n: int, value: float) -> None:
    assert ess(torch.full((n,), value, dtype=torch.float64)) == n


def test_particles_of_weight_zero_count_in_the_mean_alone() -> None:
    log_w = torch.tensor([-INF, math.log(2.0), -INF, math.log(6.0)], dtype=torch.float64)
    assert log_mean(log_w) == pytest.approx(math.log(2.0))
    assert normalised(log_w).tolist() == pytest.approx([0, 0.25, 0, 0.75])
    assert ess(log_w) == pytest.approx(64 / 40)


@pytest.mark.parametrize("function", [ess, log_mean, normalised])
def test_nothing_left_and_nonsense_are_errors(function: object) -> None:
    assert callable(function)
    with pytest.raises(RollflowError, match=r"all 2 particles have weight 0.* higher temperature"):
        function(torch.tensor([-INF, -INF], dtype=torch.float64))
    for bad in (math.nan, INF):
        with pytest.raises(RollflowError, match=f"not NaN; got .*{bad}"):
            function(torch.tensor([0.0, bad], dtype=torch.float64))
