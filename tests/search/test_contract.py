"""What every search promises: its cost, its smallest budget, and that it can be resumed from any saved state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.engine import Engine, Job, Task
from rollflow.errors import BudgetTooSmall
from rollflow.interpolants import VP, Cosine, Linear
from rollflow.kernels import DDIM, Heun
from rollflow.lookahead import ODELookahead
from rollflow.models.toy import ToyModel, ToyReward
from rollflow.requests import Request, Reward, Save, Velocity, drive
from rollflow.resampling import SSP, Residual
from rollflow.rng import Noise
from rollflow.sampler import Sampler
from rollflow.search import (
    SEARCHES,
    SMC,
    SVDD,
    BestOfN,
    CoDe,
    Finished,
    Progress,
    RolloverBudget,
    Search,
    SearchOverPaths,
    Walk,
)
from rollflow.search.acceptance import AtLeast, OverParent
from rollflow.search.potentials import MaxPotential
from rollflow.search.quota import WeightedQuota
from rollflow.search.tempering import AdaptiveTempering

CASES: list[Search] = [
    BestOfN(),
    SearchOverPaths(1, 1),
    SearchOverPaths(2, 3, start=0.3, forward=0.4, back=0.55),
    CoDe(1, 1),
    CoDe(3, 2),
    SVDD(1),
    SVDD(3),
    SVDD(2, temperature=0.5, ratio=0.3),
    SMC(),
    SMC(MaxPotential(), 0.1, SSP(), 0.5, AdaptiveTempering(), draw=True),
    SMC(resampling=Residual(), ratio=0.3),
    RolloverBudget(1, 1),
    RolloverBudget(3, 4),
    RolloverBudget(2, 3, AtLeast(2, OverParent()), WeightedQuota((3.0, 1.0))),
]
SAMPLERS = [
    Sampler(Linear(), steps=4),
    Sampler(VP(), steps=3),
    Sampler(Linear(), Heun(), steps=4, lookahead=ODELookahead(3)),
    Sampler(Cosine(), DDIM(), steps=3, lookahead=ODELookahead(2), finish=False),
    Sampler(Linear(), steps=1),
]
every_search = pytest.mark.parametrize("search", CASES, ids=repr)
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=["linear", "vp", "heun", "ddim", "one-step"])


def test_every_registered_search_is_tested() -> None:
    assert {type(search) for search in CASES} == set(SEARCHES.values())


@every_search
@every_sampler
def test_the_smallest_budget_works_and_one_less_is_refused(
    line: ToyModel, toy_reward: ToyReward, search: Search, sampler: Sampler
) -> None:
    """The refusal names the smallest budget, which is spent to the last NFE."""
    task, smallest = Task(line, "left", toy_reward), search.smallest_nfe(sampler.bind(line))
    (result,) = Engine().run([Job(task, search, smallest, sampler=sampler)])
    assert result.spent.nfe == smallest
    if smallest > 1:
        with pytest.raises(BudgetTooSmall, match=f"{search.name} .* {smallest - 1} NFE .* is {smallest} NFE") as error:
            Job(task, search, smallest - 1, sampler=sampler)
        assert error.value.smallest == smallest


@every_search
@every_sampler
def test_declared_is_spent(
    line: ToyModel, toy_reward: ToyReward, search: Search, sampler: Sampler, alone: Callable[[Job], Any]
) -> None:
    """NFE, reward calls and decodes, at budgets that divide evenly and at those that do not."""
    dynamics = sampler.bind(line)
    for spare in (0, 1, 2, 7, 16):
        nfe = search.smallest_nfe(dynamics) + spare
        cost = search.cost(dynamics, nfe)
        spent = alone(Job(Task(line, "left", toy_reward), search, nfe, 3, sampler)).spent
        assert cost.exact
        assert (cost.nfe, cost.reward_calls, cost.decodes + 1) == (spent.nfe, spent.reward_calls, spent.decodes)
        assert cost.nfe <= nfe
        assert sum(search.shares(dynamics, nfe)) <= nfe


@every_search
@every_sampler
def test_resuming_gives_the_same_bits(line: ToyModel, toy_reward: ToyReward, search: Search, sampler: Sampler) -> None:
    """From every saved state, with the requests that follow it and no others."""
    dynamics = sampler.bind(line)
    share = search.shares(dynamics, search.smallest_nfe(dynamics) + 13)[-1]
    walk = Walk(dynamics, Noise(6, 1, line.shape, line.dtype), share)

    def run(resume: Progress | None) -> tuple[Finished, list[Progress], list[Tensor]]:
        saved: list[Progress] = []
        asked: list[Tensor] = []

        def answer(request: Request) -> Tensor | None:
            match request:
                case Velocity(x, t):
                    asked.append(x)
                    return line.velocity(x, t, ["right"] * len(x))
                case Reward(x0):
                    return toy_reward.score(x0, ["right"] * len(x0))
                case Save(state):
                    saved.append(state)
            return None

        return drive(search.population(walk, resume), answer), saved, asked

    whole, states, _ = run(None)
    steps = len(states) if isinstance(search, SearchOverPaths) else sampler.steps
    assert [state.step for state in states] == list(range(steps))
    for state in states:
        again, later, asked = run(state)
        assert torch.equal(again.x0, whole.x0)
        assert again[1:] == whole[1:]
        assert [other.step for other in later] == list(range(state.step + 1, steps))
        assert 0 <= state.nfe_left - sum(len(x) for x in asked) < dynamics.child_nfe
        for mine, theirs in zip(later, states[state.step + 1 :], strict=True):
            assert (mine.nfe_left, mine.nfe_spent) == (theirs.nfe_left, theirs.nfe_spent)
            torch.testing.assert_close(mine.extra, theirs.extra, rtol=0, atol=0)
            assert mine.noise_level == theirs.noise_level
            fields = zip((*mine.particles, mine.ancestors), (*theirs.particles, theirs.ancestors), strict=True)
            for one, other in fields:
                torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
