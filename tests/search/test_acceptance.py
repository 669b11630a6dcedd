"""When to stop drawing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollflow.errors import RollflowError
from rollflow.search.rbf.acceptance import Acceptance, AtLeast, BestSoFar, Drawn, OverParent, OverQuantile

reward = st.floats(-1e3, 1e3)


def stops_at(rule: Acceptance, rewards: list[float], parent: float = 0.0, best: float = 0.0) -> int | None:
    """Number of draws after which a rule first stops; None is never."""
    for n in range(1, len(rewards) + 1):
        if rule.accepts(Drawn(tuple(rewards[:n]), parent, best)):
            return n
    return None


@given(st.lists(reward, min_size=1, max_size=8), reward, reward)
@pytest.mark.slow
def test_the_first_to_beat_a_threshold(rewards: list[float], parent: float, best: float) -> None:
    """The best so far or the parent; equal is not better."""
    for rule, threshold in ((BestSoFar(), best), (OverParent(), parent)):
        beating = [n for n, r in enumerate(rewards, 1) if r > threshold]
        assert stops_at(rule, rewards, parent, best) == (beating[0] if beating else None)


@given(st.lists(reward, min_size=1, max_size=8), st.integers(1, 5), reward)
def test_not_before_so_many_draws(rewards: list[float], draws: int, best: float) -> None:
    """One that was found earlier counts when the time has come."""
    alone, later = stops_at(BestSoFar(), rewards, best=best), stops_at(AtLeast(draws), rewards, best=best)
    expected = None if alone is None else max(alone, draws)
    assert later == (None if expected is None or expected > len(rewards) else expected)


@pytest.mark.parametrize(
    ("q", "rewards", "expected"),
    [
        (0.0, [1.0], 1),
        (0.5, [1.0, 2.0], 2),
        (0.5, [2.0, 1.0, 1.5, 1.8], 4),  # third: one of three is below
        (0.75, [0.0, 1.0, 2.0, 3.0], 4),  # three of four
        (0.8, [0.0, 1.0, 2.0, 3.0], None),
        (0.9, [*range(9), 9.5], 10),
        (0.5, [1.0] * 20, None),
    ],
)
def test_the_share_that_a_child_beats(q: float, rewards: list[float], expected: int | None) -> None:
    assert stops_at(OverQuantile(q), rewards) == expected


def test_the_quantile_rule_stops_as_often_as_ranks_say() -> None:
    """Of independent draws the n-th is among the best n - ceil(q n) with that probability, whatever came before."""
    trials, q = 4000, 0.6
    draws = torch.randn(trials, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    stopped = [stops_at(OverQuantile(q), row.tolist()) for row in draws]
    going = 1.0
    for n, allowed in enumerate([0, 0, 1, 1, 2, 2], 1):  # n - ceil(0.6 n)
        p = going * allowed / n
        share = sum(at == n for at in stopped) / trials
        assert abs(share - p) <= 4 * (p * (1 - p) / trials) ** 0.5
        going -= p


def test_rules_wrap_each_other() -> None:
    """Third draw: the first three hold a better one than the parent. The quantile looks at the last draw alone."""
    assert stops_at(AtLeast(3, OverParent()), [1.0, -1.0, -2.0], parent=0.5) == 3
    assert stops_at(AtLeast(3, OverQuantile(0.5)), [1.0, 2.0, 0.0, 1.5]) == 4


@pytest.mark.parametrize("q", [-0.1, 1.0, float("nan")])
def test_no_such_quantile(q: float) -> None:
    with pytest.raises(RollflowError, match="q of quantile must be a finite number"):
        OverQuantile(q)


def test_no_draw_at_all() -> None:
    with pytest.raises(RollflowError, match="draws of at-least must be a whole number >= 1, not 0"):
        AtLeast(0)
