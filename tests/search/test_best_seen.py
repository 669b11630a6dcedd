"""Samplers that return the best clean estimate of a whole search."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.engine import Engine, Job, Observer, Spending, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Reward, drive
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, CoDe, Progress, Propagator, RolloverBudget, Search
from rollflow.testing.reference import Answering
from rollflow.testing.values import same

POINT = ToyReward(torch.tensor([0.0, 0.25]))  # the mean of the data, which the first estimates are near
SEEN = Sampler(VP(), steps=5, finish=False, best_seen=True)
LAST = Sampler(VP(), steps=5, finish=False)
SEARCHES: list[Search] = [SVDD(2), CoDe(2), SMC(), RolloverBudget(2, 5)]
each = pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)


class Watch(Observer):
    """Keeps all that is scored, with its noise level."""

    def __init__(self) -> None:
        self.scores: list[tuple[float, Tensor, float]] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.scores += [(float(r), x0, request.noise_level) for r, x0 in zip(rewards, request.x0, strict=True)]


@each
@pytest.mark.slow
def test_the_best_of_all_is_returned_with_its_noise_level(plane: ToyModel, search: Search) -> None:
    """At no cost: the search goes the same way. Over 20 seeds an earlier estimate is the best more than once."""
    earlier = 0
    for seed in range(20):
        watch, task = Watch(), Task(plane, "pair", POINT)
        [seen] = Engine(observers=[watch]).run([Job(task, search, 60, seed, SEEN)])
        [last] = Engine().run([Job(task, search, 60, seed, LAST)])
        reward, x0, level = max(watch.scores, key=lambda one: one[0])
        assert (seen.reward, seen.noise_level) == (reward, level)
        assert torch.equal(seen.x0, x0)
        assert seen.spent == last.spent
        assert seen.reward >= last.reward
        assert torch.equal(seen.x0, last.x0) == (seen.reward == last.reward)
        assert last.noise_level == LAST.bind(plane).last_noise_level
        earlier += seen.reward > last.reward
    assert earlier > 1


@each
@pytest.mark.parametrize("guidance", [None, DPS(0.1)])
@pytest.mark.slow
def test_a_resumed_search_returns_the_same(plane: ToyModel, search: Search, guidance: DPS | None) -> None:
    """From every saved state, which holds the best estimate so far; with guidance, too, whose estimates are scored."""
    dynamics = Sampler(VP(), steps=5, finish=False, best_seen=True, guidance=guidance).bind(plane)
    for seed in range(4):
        propagator = Propagator(dynamics, Noise(seed, 0, plane.shape, plane.dtype), 60)
        first = Answering(Task(plane, "pair", POINT))
        whole = drive(search.population(propagator), first)
        states: list[Progress] = first.saved
        bests = [-torch.inf if state.best is None else state.best.reward for state in states]
        assert bests == sorted(bests)
        assert bests[-1] == whole.reward
        for state in states:
            rest = Answering(Task(plane, "pair", POINT))
            assert same(drive(search.population(propagator, state), rest), whole)


def test_a_draw_stays_a_draw(plane: ToyModel) -> None:
    """SMC that returns a sample of its law returns no other."""
    search, task = SMC(draw=True), Task(plane, "pair", POINT)
    seen, last = Engine().run([Job(task, search, 60, 3, sampler) for sampler in (SEEN, LAST)])
    assert torch.equal(seen.x0, last.x0)


def test_nothing_is_kept_unless_it_is_wanted(plane: ToyModel) -> None:
    answering = Answering(Task(plane, "pair", POINT))
    drive(SVDD(2).population(Propagator(LAST.bind(plane), Noise(0, 0, plane.shape, plane.dtype), 60)), answering)
    assert all(state.best is None for state in answering.saved)
    assert not Sampler().best_seen


def test_finished_samples_are_not_compared_with_estimates(plane: ToyModel) -> None:
    for sampler in (Sampler(VP(), best_seen=True), Sampler(Linear(), best_seen=True, finish=True)):
        with pytest.raises(BadSetting, match="this sampler finishes its samples; turn finish or best_seen off"):
            Job(Task(plane, "pair", POINT), BestOfN(), 100, sampler=sampler)
