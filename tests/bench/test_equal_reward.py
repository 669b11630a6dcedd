"""The NFE that a search needs for another's mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollflow.bench.equal_reward import needed, needed_text, nfe_for
from rollflow.bench.intervals import Interval


def crossing(budgets: list[int], means: list[float], *targets: float) -> list[float]:
    several = np.repeat(np.array(means)[:, None], len(targets), 1)
    return [float(nfe) for nfe in nfe_for(budgets, several, np.array(targets))]


def test_budgets_are_interpolated_in_their_logarithm() -> None:
    """Below the first mean nobody knows how few suffice; above the last one none does."""
    found = crossing([10, 20, 80], [0.0, 1.0, 2.0], 1.5, 1.0, 0.0, -1.0, 2.5)
    assert found == pytest.approx([40, 20, 10, 0, math.inf])
    assert crossing([10, 20, 80], [0.0, 2.0, 1.0], 1.0, 1.5) == pytest.approx([10 * 2**0.5, 10 * 2**0.75])  # the first
    assert crossing([10, 20], [1.0, 1.0], 1.0, 0.9, 1.1) == [10, 0, math.inf]


def test_all_prompts_are_resampled_with_the_reference() -> None:
    """Every prompt gains 1 from 10 to 40 NFE, so that in any resample the half-way target is met at 20."""
    values = np.arange(30.0)
    found = needed({40: values + 1, 10: values}, values + 0.5)
    assert found is not None
    assert tuple(found) == pytest.approx((20, 20, 20, 30))
    assert needed({}, values) is None


def test_the_interval_is_that_of_the_crossing() -> None:
    """The target lies between the means by a share whose standard error is known, far from both ends."""
    rng = np.random.default_rng(0)
    prompts, gain = 400, 1.0
    zero = np.zeros(prompts)
    target = rng.normal(gain / 2, 1.0, prompts)
    found = needed({10: zero, 1000: zero + gain}, target)
    assert found is not None
    ends = [target.mean() + z * target.std() / math.sqrt(prompts) for z in (0.0, -1.96, 1.96)]
    assert [math.log10(nfe) for nfe in found[:3]] == pytest.approx([1 + 2 * share for share in ends], abs=0.02)


def test_what_lies_outside_is_said() -> None:
    assert needed_text(Interval(80.4, 0, 120, 30), [50, 100, 200]) == "80 [<50, 120]"
    assert needed_text(Interval(0, 0, 50.2, 30), [50, 100, 200]) == "<50 [<50, 50]"
    assert needed_text(Interval(math.inf, 150, math.inf, 30), [50, 200]) == ">200 [150, >200]"
    assert needed_text(Interval(60, 60, 60, 19), [50, 200]) == "60 (n = 19)"
    assert needed_text(None, []) == "-"
