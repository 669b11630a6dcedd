"""The price list, line by line, and the cost of schedules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow import requests
from rollflow.dynamics.grids import Arc
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler, Heun
from rollflow.dynamics.lookahead import ODELookahead, Tweedie
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, drive
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import Cost, Finished, Propagator, Schedule, Stage, base
from rollflow.search.cost import Account
from rollflow.search.rehearsal import MOST_IDLE, EndlessSearch, Rehearsal, rehearse


def dear(line: ToyModel, *, guided: bool = True) -> Dynamics:
    """4 NFE to evaluate and score, 1 to move, 2 to finish."""
    guidance = DPS() if guided else None
    return Sampler(Linear(), Heun(), Arc(), 3, ODELookahead(4), guidance=guidance).bind(line)


def plain(line: ToyModel, *, guided: bool = True) -> Dynamics:
    """1 NFE to evaluate and score, and all else free."""
    return Sampler(Linear(), Euler(), steps=3, lookahead=Tweedie(), guidance=DPS() if guided else None).bind(line)


def test_the_prices_are_those_of_the_dynamics(line: ToyModel) -> None:
    dynamics = dear(line)
    assert (dynamics.evaluate_nfe, dynamics.sampler.kernel.extra_nfe, dynamics.finish_nfe) == (4, 1, 2)
    assert (plain(line).evaluate_nfe, plain(line).finish_nfe) == (1, 0)


@pytest.mark.parametrize(
    ("score", "guided", "cheap", "costly"),
    [
        (True, False, (5, 5, 0), (20, 5, 0)),
        (False, False, (5, 0, 0), (5, 0, 0)),
        (True, True, (5, 5, 5), (20, 10, 5)),
        (False, True, (5, 5, 5), (5, 5, 5)),
    ],
)
def test_evaluations(
    line: ToyModel, score: bool, guided: bool, cheap: tuple[int, int, int], costly: tuple[int, int, int]
) -> None:
    """(NFE, reward calls and decodes, backward passes) of five: what is differentiated has scored the mean."""
    for dynamics, (nfe, scores, backward) in ((plain(line), cheap), (dear(line), costly)):
        account = Account(dynamics)
        account.add_evaluations(5, score=score, guided=guided)
        assert account.cost == Cost(nfe, scores, scores, backward_passes=backward)
    for unguided in (plain(line, guided=False), dear(line, guided=False)):
        accounts = [Account(unguided), Account(unguided)]
        accounts[0].add_evaluations(5, score=score, guided=guided)
        accounts[1].add_evaluations(5, score=score)
        assert accounts[0].cost == accounts[1].cost


def test_an_evaluation_is_scored_and_not_differentiated_unless_told(line: ToyModel) -> None:
    account = Account(dear(line))
    account.add_evaluations(5)
    assert account.cost == Cost(20, 5, 5)


def test_all_else(line: ToyModel) -> None:
    for dynamics, guidance, moves, finish in (
        (dear(line), Cost(3, 3, 3, backward_passes=3), Cost(3, 0, 0), Cost(6, 3, 3)),
        (dear(line, guided=False), Cost(0, 0, 0), Cost(3, 0, 0), Cost(6, 3, 3)),
        (plain(line), Cost(3, 3, 3, backward_passes=3), Cost(0, 0, 0), Cost(0, 0, 0)),
    ):
        for add, expected in (
            (Account.add_guidance, guidance),
            (Account.add_moves, moves),
            (Account.add_denoising, finish),
            (Account.add_scores, Cost(0, 3, 3)),
        ):
            account = Account(dynamics)
            add(account, 3)
            assert account.cost == expected
            add(account, 3)
            assert account.cost == expected.times(2)


def test_what_is_left_and_what_the_step_has_cost(line: ToyModel) -> None:
    assert Account(plain(line)).settle() == (0, 0)
    account = Account(plain(line), 20)
    account.add_evaluations(3)
    assert account.settle() == (17, 3)
    assert account.settle() == (17, 0)
    account.add_evaluations(2)
    account.add_evaluations(2)
    assert account.settle() == (13, 4)
    account.open(9)
    account.add_evaluations(1)
    assert account.settle() == (8, 1)
    assert account.cost == Cost(8, 8, 8)


def test_sums_and_multiples() -> None:
    one, other = Cost(2, 3, 5, True, 7), Cost(20, 30, 50, False, 70)
    assert one.plus(one) == one.times(2) == Cost(4, 6, 10, True, 14)
    assert one.plus(other) == other.plus(one) == Cost(22, 33, 55, False, 77)
    assert other.plus(other) == other.times(2) == Cost(40, 60, 100, False, 140)
    assert one.times(0) == Cost(0, 0, 0, True, 0)


def test_defaults(line: ToyModel) -> None:
    assert Cost(1, 2, 3) == (1, 2, 3, True, 0)
    assert Stage(4) == (4, True, False, 0, False, 1)
    assert Schedule([]) == ([], 0)
    assert Rehearsal(plain(line), Noise(0, 0, (1,), torch.float64), 0).surplus == 0


def test_the_cost_of_a_schedule(line: ToyModel) -> None:
    """4 NFE to evaluate, or 1 without a score; 1 to move, but for the first and fresh ones; 2 to finish."""
    dynamics = dear(line)
    for schedule, expected in (
        (Schedule([]), Cost(0, 0, 0)),
        (Schedule([Stage(3)]), Cost(12, 3, 3)),
        (Schedule([Stage(3), Stage(2)]), Cost(12 + 8 + 2, 5, 5)),
        (Schedule([Stage(3), Stage(2, fresh=True)]), Cost(12 + 8, 5, 5)),
        (Schedule([Stage(3, fresh=True), Stage(2, score=False)]), Cost(12 + 2 + 2, 3, 3)),
        (Schedule([Stage(3), Stage(2, times=5)]), Cost(12 + 5 * 10, 13, 13)),
        (Schedule([Stage(3, times=0)]), Cost(0, 0, 0)),
        (Schedule([Stage(3), Stage(2, parents=4)]), Cost(12 + 10 + 4, 9, 9, backward_passes=4)),
        (Schedule([Stage(3, False, True)]), Cost(3, 3, 3, backward_passes=3)),
        (Schedule([Stage(3)], finished=2), Cost(12 + 4, 5, 5)),
    ):
        assert schedule.cost(dynamics) == expected


def test_what_a_population_sees_in_a_rehearsal(line: ToyModel) -> None:
    """States of one element that are all 0, no budget, and an evaluation that is scored but not differentiated."""
    seen: list[Tensor] = []

    def population(propagator: Propagator) -> Asking[Finished]:
        seen.append(propagator.noise.normals(0, [0, 1], [0, 0]))
        assert propagator.nfe == 0
        particles = yield from propagator.evaluate(seen[0], propagator.time(0))
        assert particles.guidance_shift is None
        return propagator.returned(particles)

    assert rehearse(population, dear(line), 0) == Cost(8, 2, 2)
    assert seen[0].tolist() == [[0.0], [0.0]]


def test_a_guided_evaluation_in_a_rehearsal_has_a_shift_where_there_is_guidance(line: ToyModel) -> None:
    x = torch.ones(2, 1, dtype=torch.float64)
    for dynamics, shifted in ((dear(line), True), (dear(line, guided=False), False)):
        rehearsal = Rehearsal(dynamics, Noise(0, 0, (1,), torch.float64), 0)
        particles = drive(rehearsal.evaluate(x, rehearsal.time(0), guided=True), rehearsal.answer)
        assert (particles.guidance_shift is not None) == shifted
        assert particles.reward.tolist() == [0.0, 0.0]


def test_the_bounds_of_rehearsals(line: ToyModel) -> None:
    """A hundred times what a budget and its steps need, but no less than 10^5 NFE and no more than any job may have."""
    assert (MOST_IDLE, base._ANY_BUDGET) == (10**4, 10**4)
    assert [base._most(plain(line), budget) for budget in (0, 996, 998, 10**4, 10**6)] == [
        10**5, 10**5, 100_100, 1_000_300, 10**7
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "spent", "idle", "ends"),
    [(5, 4, 5, True), (5, 4, 6, False), (5, 5, 0, False), (0, 2, 5, True), (6, 0, 0, False)],
)
def test_a_rehearsal_ends_after_so_many_nfe_or_requests_that_cost_none(
    monkeypatch: pytest.MonkeyPatch, line: ToyModel, first: int, spent: int, idle: int, ends: bool
) -> None:
    """4 NFE are allowed here, and 5 requests in a row that cost nothing, before the NFE and after them."""
    monkeypatch.setattr("rollflow.search.rehearsal.MOST_IDLE", 5)
    x = torch.zeros(1, 1, dtype=torch.float64)

    def population(propagator: Propagator) -> Asking[Finished]:
        for _ in range(first):
            yield from requests.decode(x)
        for _ in range(spent):
            yield from requests.velocity(x, propagator.time(0))
        for _ in range(idle):
            yield from requests.decode(x)
        return Finished(x[0], 0.0, 0.0)

    if ends:
        assert rehearse(population, plain(line), 0, most=4) == Cost(spent, 0, first + idle)
        return
    what = "spent 5 NFE" if spent > 4 else "made 5 requests that cost no NFE"
    with pytest.raises(EndlessSearch, match=f"method 'one' does not end: .* a population {what} and had not returned"):
        rehearse(population, plain(line), 0, most=4, method="one")
