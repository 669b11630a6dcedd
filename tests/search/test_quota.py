"""How children are shared between transitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollflow.dynamics.grids import Levels
from rollflow.dynamics.interpolants import Linear
from rollflow.errors import RollflowError
from rollflow.models.scenes import ScenesTurbo
from rollflow.sampler import Sampler
from rollflow.search import RolloverBudget
from rollflow.search.profile import packaged
from rollflow.search.purpose import Purpose
from rollflow.search.rbf.quota import (
    QUOTAS,
    GainQuota,
    PublishedQuota,
    QuotaSchedule,
    UniformQuota,
    WeightedQuota,
)

transitions = st.integers(1, 12)
spare = st.integers(0, 300)
weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)


@given(transitions, spare, weights)
def test_all_children_are_given_away_and_none_goes_without(T: int, more: int, w: list[float]) -> None:
    schedules: list[QuotaSchedule] = [UniformQuota(), PublishedQuota(), WeightedQuota(tuple(w))]
    for schedule in schedules:
        quotas = schedule.split(T + more, T)
        assert len(quotas) == T
        assert sum(quotas) == T + more
        assert min(quotas) >= 1


@given(transitions, spare, st.floats(1e-3, 1e3), st.integers(1, 5))
def test_equal_weights_are_uniform(T: int, more: int, w: float, n: int) -> None:
    assert WeightedQuota((w,) * n).split(T + more, T) == UniformQuota().split(T + more, T)


def test_uniform_leaves_the_remainder_to_the_last() -> None:
    assert UniformQuota().split(23, 5) == [4, 4, 4, 4, 7]


def test_published_divides_by_the_steps() -> None:
    """With 10 steps, hence 9 transitions, and 224 children, which is what the paper's setting buys."""
    assert PublishedQuota().split(224, 9) == [22] * 8 + [48]
    assert PublishedQuota().split(11, 9) == [1] * 8 + [3]
    assert PublishedQuota().split(9, 9) == [1] * 9
    assert PublishedQuota().split(7, 1) == [7]
    assert (QUOTAS.make("published"), PublishedQuota.reserve, UniformQuota.reserve) == (PublishedQuota(), 1, 0)


@pytest.mark.parametrize(
    ("w", "T", "expected"),
    [
        ((4.0, 3.0, 2.0, 1.0), 4, [41, 31, 21, 11]),  # one each, and 100 in tenths
        ((4.0, 1.0), 4, [41, 31, 21, 11]),  # the same line by its ends
        ((1.0, 3.0, 1.0), 5, [1 + 100 * w // 9 for w in (1, 2, 3, 2)] + [13]),  # up and down again; 1 + 11 and 1 left
        ((7.0, 1.0), 1, [101]),
        ((3.0, 5.0, 1.0), 2, [76, 26]),  # the ends alone
    ],
)
def test_the_rest_is_in_proportion(w: tuple[float, ...], T: int, expected: list[int]) -> None:
    assert WeightedQuota(w).split(100 + T, T) == expected


@pytest.mark.parametrize("w", [(), (1.0, 0.0), (1.0, -1.0), (math.inf,), (math.nan, 1.0)])
def test_weights_out_of_range(w: tuple[float, ...]) -> None:
    with pytest.raises(RollflowError, match=r"weights.* of (a quota schedule|weighted).* must be"):
        WeightedQuota(w)


def purpose(reward: str) -> Purpose:
    return Purpose(ScenesTurbo, (reward,), 50)


def along(quota: QuotaSchedule, *levels: float) -> QuotaSchedule:
    """The rule for transitions to some noise levels."""
    return quota.along(Sampler(Linear(), grid=Levels((1.0, *levels)), steps=len(levels) + 1).bind(ScenesTurbo))


def test_gains_are_weights_at_the_levels_that_transitions_lead_to() -> None:
    """Between the levels of the profile they are interpolated; one child each is given before the rest is shared."""
    quota = GainQuota(levels=(1.0, 0.5, 0.1), gains=(0.1, 0.3, 0.0))
    assert along(quota, 0.75, 0.5, 0.3).split(3 + 65, 3) == [1 + 20, 1 + 30, 1 + 15]
    assert along(quota, 0.5, 0.1).split(2 + 1000, 2) == [1000, 2]  # a gain of 0 still has a child, and what is rounded


def test_without_gains_quotas_are_uniform() -> None:
    for quota in (GainQuota(), GainQuota(levels=(1.0, 0.5), gains=(0.0, 0.0))):
        assert along(quota, 0.9, 0.7, 0.5).split(23, 3) == UniformQuota().split(23, 3)
    assert GainQuota().prepared(purpose("jpeg-compressibility")) == UniformQuota()


def test_gains_come_from_the_packaged_profile() -> None:
    known, quota = packaged("scenes-turbo", "caption"), GainQuota().prepared(purpose("caption"))
    assert known is not None
    assert isinstance(quota, GainQuota)
    assert quota.levels == known.levels
    assert quota.gains == tuple(max(0.0, gain) for gain in known.gains().mean(0).tolist())
    assert quota.prepared(purpose("count")) is quota
    search = RolloverBudget(1, 4, quota=GainQuota()).prepared(purpose("caption"))
    assert isinstance(search, RolloverBudget)
    assert search.quota == quota


def test_gains_without_levels_are_refused() -> None:
    with pytest.raises(RollflowError, match="one gain for each level"):
        GainQuota(levels=(1.0, 0.5), gains=(0.1,))
