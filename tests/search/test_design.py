"""Designs of beams: closed forms, and every other choice on small cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rollflow.search.design import LAST, MOST, design, expected_maxima, without

LEVELS = (1.0, 0.8, 0.6, 0.4, 0.2)


def test_expected_maxima_of_normal_variables() -> None:
    """In closed form up to five (David & Nagaraja 2003), and Tippett's (1925) for more."""
    found, root = expected_maxima(1000), math.sqrt(math.pi)
    known = {
        1: 0.0,
        2: 1 / root,
        3: 3 / (2 * root),
        4: 6 * math.atan(math.sqrt(2)) / root**3,
        5: 5 / (4 * root) + 15 * math.asin(1 / 3) / (2 * root**3),
    }
    for n, value in known.items():
        assert found[n - 1] == pytest.approx(value, abs=1e-12), n
    for n, tabulated in {10: 1.53875, 100: 2.50759, 1000: 3.24144}.items():
        assert found[n - 1] == pytest.approx(tabulated, abs=5e-6), n
    assert (np.diff(found, 2) < 0).all()


def predicted(kappa: tuple[float, ...], children: tuple[int, ...]) -> float:
    return float(sum(k * expected_maxima(64)[count - 1] for k, count in zip(kappa, children, strict=True)))


def best_of_all(kappa: tuple[float, ...], levels: tuple[float, ...], budget: int) -> float:
    """The largest gain over every set of levels and all numbers of children."""
    most = -1.0
    for size in range(1, len(levels) + 1):
        for rest in itertools.combinations(range(1, len(levels)), size - 1):
            if not any(levels[i] <= max(LAST, levels[-1]) for i in rest):
                continue
            gains = np.array(kappa)
            for i in reversed(range(1, len(levels))):
                if i not in rest:
                    gains = without(gains, i)
            for cuts in itertools.combinations(range(1, budget), size - 1):
                children = tuple(np.diff((0, *cuts, budget)).tolist())
                most = max(most, predicted(tuple(gains), children))
    return most


@pytest.mark.parametrize("budget", [5, 9, 14])
@pytest.mark.parametrize(
    "kappa",
    [(0.1, 0.1, 1.0, 0.8, 0.3), (1.0, 0.5, 0.2, 0.1, 0.05), (0.0, 0.0, 0.0, 1.0, 1.0), (0.2, 0.3, 0.4, 0.3, 0.2)],
)
def test_a_design_is_as_good_as_the_best_of_all(kappa: tuple[float, ...], budget: int) -> None:
    """Leaving out one level after another could end in less; here it loses at most 2 %."""
    found = design(kappa, LEVELS, budget)
    assert sum(found.children) == budget
    assert min(found.children) >= 1
    best = best_of_all(kappa, LEVELS, budget)
    assert found.gain <= best + 1e-9
    assert found.gain >= 0.98 * best


def test_children_are_spent_where_a_choice_gains_most() -> None:
    """Of two levels that both stay, moving a child from one to the other gains nothing."""
    found = design((1.0, 0.4), (1.0, 0.2), 60)
    assert found.levels == (1.0, 0.2)
    assert found.gain == pytest.approx(predicted((1.0, 0.4), found.children))
    for moved in (-1, 1):
        other = (found.children[0] + moved, found.children[1] - moved)
        assert predicted((1.0, 0.4), other) <= found.gain


def test_levels_without_a_gain_are_left_out() -> None:
    found = design((0.5, 0.0, 0.0, 0.6, 0.5), LEVELS, 40)
    assert found.levels == (1.0, 0.4, 0.2)
    assert found.children == (13, 15, 12)


def test_a_level_left_out_adds_to_the_next() -> None:
    gains = np.array([1.0, 3.0, 4.0, 2.0])
    assert without(gains, 1).tolist() == [1.0, 5.0, 2.0]
    assert without(gains, 3).tolist() == [1.0, 3.0, 4.0]
    assert gains.tolist() == [1.0, 3.0, 4.0, 2.0]


def test_the_first_level_and_one_near_the_data_stay() -> None:
    found = design((0.0, 1.0, 1.0, 0.0, 0.0, 0.0), (1.0, 0.7, 0.5, 0.2, 0.1, 0.05), 30)
    assert found.levels[0] == 1.0
    assert sum(level <= LAST for level in found.levels) == 1
    assert design((0.0, 1.0, 0.0), (1.0, 0.7, 0.5), 30).levels == (1.0, 0.5)


def test_a_profile_that_says_nothing_leaves_it_even() -> None:
    found = design((0.0, -0.1, 0.0), (1.0, 0.5, 0.1), 8)
    assert (found.levels, found.children, found.gain) == ((1.0, 0.5, 0.1), (2, 3, 3), 0.0)


@pytest.mark.parametrize("budget", range(1, 8))
def test_small_budgets(budget: int) -> None:
    found = design((0.1, 0.2, 0.9, 0.8, 0.1), LEVELS, budget)
    assert len(found.levels) <= max(2, budget)
    assert sum(found.children) == max(2, budget)
    assert found.levels[-1] <= LAST


def test_more_is_not_worth_less() -> None:
    gains = [design((0.3, 0.2, 0.9, 0.8, 0.1), LEVELS, budget).gain for budget in range(2, 80)]
    assert (np.diff(gains) > -1e-9).all()


def test_large_budgets_are_spent_in_proportion() -> None:
    kappa = (0.3, 0.2, 0.9, 0.8, 0.1)
    assert design(kappa, LEVELS, 10**7) == design(kappa, LEVELS, MOST)
    assert sum(design(kappa, LEVELS, 10**7).children) == MOST
