"""A job's trace and best from its populations' own accounts, by hand."""

from __future__ import annotations

import torch

from rollflow.engine import Point, PopulationState, Spending, in_lockstep
from rollflow.engine.state import best_of, trace_of
from rollflow.requests import Reward
from rollflow.search import Finished


def standing(spent: int, *rises: tuple[int, float]) -> PopulationState:
    best = Finished(torch.tensor([float(spent)]), rises[-1][1], 0.0) if rises else None
    return PopulationState(None, Spending(nfe=spent), tuple(Point(*rise) for rise in rises), best)


def test_populations_in_lockstep() -> None:
    """One that has spent its share waits for the others."""
    assert [in_lockstep(nfe, (10, 4, 7)) for nfe in (0, 3, 5, 8, 99)] == [0, 9, 14, 19, 21]


def test_a_trace_is_what_all_found_in_the_order_of_their_own_accounts() -> None:
    """At 2 NFE each, the first has 1; at 3, the second 2 and not the first again; at 6, the second is done with 4."""
    first, second = standing(10, (2, 1.0), (3, 1.5), (6, 5.0)), standing(4, (2, 0.5), (3, 2.0), (4, 3.0))
    assert trace_of([first, second]) == [(4, 1.0), (6, 1.5), (6, 2.0), (8, 3.0), (10, 5.0)]
    assert trace_of([standing(3), standing(0)]) == []


def test_of_equals_the_best_is_the_one_found_first() -> None:
    late, early, none = standing(9, (8, 2.0)), standing(5, (1, 1.0), (3, 2.0)), standing(4)
    assert best_of([none, late, early]) is early.best
    assert best_of([late, standing(7, (8, 2.0))]) is late.best
    assert best_of([none]) is None


def test_only_a_rise_is_one() -> None:
    """The first of equals stays; what fell behind leaves no mark."""
    request = Reward(torch.tensor([[1.0], [2.0], [3.0]]), 0.25)
    once = PopulationState(spent=Spending(nfe=4)).scored(request, torch.tensor([0.0, 7.0, 7.0]))
    assert (once.rises, once.best) == (((4, 7.0),), (torch.tensor([2.0]), 7.0, 0.25, None, None))
    assert once.scored(request, torch.tensor([7.0, 6.0, 5.0])) is once
