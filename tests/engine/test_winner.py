"""Which population and which row a job's sample came from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Linear
from rollflow.engine import Caps, Engine, Interrupted, Job, Observer, Origin, Spending, Task
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Asking, Reward, reward, save, velocity
from rollflow.rewards.mixing import RankAverage
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SEARCHES, SMC, SVDD, BestOfN, Cost, Finished, Progress, Propagator, RolloverBudget, Search


class Kept(Observer):
    """The particles that every population saved last, and its finished samples.

    Args:
        stop: Steps of all populations together after which it presses Ctrl-C; 0 is never.
    """

    def __init__(self, stop: int = 0) -> None:
        self.stop, self.steps = stop, 0
        self.last: dict[int, Progress] = {}
        self.finished: dict[int, Tensor] = {}
        self.scored_by: dict[int, list[float]] = defaultdict(list)

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.scored_by[population] += rewards.tolist()
        if request.noise_level == 0:
            self.finished[population] = request.x0

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.last[population] = progress
        self.finished.pop(population, None)  # what is saved later is what the population goes on with
        self.steps += 1
        if self.steps == self.stop:
            raise KeyboardInterrupt

    def samples(self, population: int) -> Tensor:
        """(B, ...) what the population could return."""
        return self.finished.get(population, self.last[population].particles.clean)


@pytest.mark.parametrize("name", [*SEARCHES])
@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=["free", "paid"])  # what finishing costs
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.slow
def test_the_origin_of_every_search_is_the_row_that_won(
    line: ToyModel, toy_reward: ToyReward, name: str, interpolant: Linear | VP, seed: int
) -> None:
    sampler = Sampler(interpolant, steps=5)
    job = Job(Task(line, "left", toy_reward), SEARCHES.make(name), 200, seed, sampler)
    kept = Kept()
    (result,) = Engine(observers=[kept]).run([job])
    population, row = result.origin
    assert row is not None
    assert torch.equal(kept.samples(population)[row], result.x0)


@pytest.mark.slow
def test_the_winner_is_not_always_the_first(line: ToyModel, toy_reward: ToyReward) -> None:
    jobs = [
        Job(Task(line, "wide", toy_reward), RolloverBudget(3, 3), 60, seed, Sampler(Linear(), steps=5))
        for seed in range(12)
    ]
    assert {result.origin for result in Engine().run(jobs)} == {Origin(0, 0), Origin(1, 0), Origin(2, 0)}
    jobs = [Job(Task(line, "wide", toy_reward), BestOfN(), 20, seed, Sampler(Linear(), steps=5)) for seed in range(24)]
    assert {result.origin for result in Engine().run(jobs)} == {Origin(0, row) for row in range(4)}


def test_a_drawn_particle_has_its_own_row(line: ToyModel, toy_reward: ToyReward) -> None:
    """It need not be the one of the highest reward."""
    kept, rows = Kept(), list[tuple[int, int]]()
    for seed in range(12):
        job = Job(Task(line, "wide", toy_reward), SMC(draw=True, temperature=1.0), 40, seed, Sampler(Linear(), steps=5))
        (result,) = Engine(observers=[kept]).run([job])
        assert torch.equal(kept.samples(0)[result.origin.row], result.x0)
        rows.append((result.origin.row or 0, kept.last[0].particles.best_row))
    assert any(row != best for row, best in rows)


class Twin(ToyReward):
    """The same by another name."""

    name = "twin"


@pytest.mark.slow
def test_a_relative_reward_names_the_population_that_won_in_the_end(line: ToyModel, toy_reward: ToyReward) -> None:
    kept, mixed = Kept(), RankAverage((toy_reward, Twin()))
    job = Job(Task(line, "wide", mixed), RolloverBudget(3, 3), 120, 4, Sampler(VP(), steps=5))
    (result,) = Engine(observers=[kept]).run([job])
    finished = {population: float(x0) for population, x0 in kept.finished.items()}
    assert result.origin == Origin(max(finished, key=lambda population: finished[population]), 0)


def test_an_interrupted_search_names_the_row_of_the_highest_reward(line: ToyModel, toy_reward: ToyReward) -> None:
    kept, job = Kept(), Job(Task(line, "wide", toy_reward), SVDD(streams=3), 120, 1, Sampler(Linear(), steps=5))
    (result,) = Engine(observers=[kept]).run([replace(job, caps=Caps(reward_calls=70))])
    assert result.interrupted
    assert 0 < kept.last[0].step < 4
    assert result.origin == Origin(0, int(kept.last[0].particles.reward.argmax()))


@pytest.mark.slow
def test_an_interrupted_search_names_the_population_that_saw_its_best(line: ToyModel, toy_reward: ToyReward) -> None:
    populations = set()
    for seed in range(8):
        kept, job = (
            Kept(),
            Job(Task(line, "wide", toy_reward), RolloverBudget(3, 3), 60, seed, Sampler(Linear(), steps=5)),
        )
        (result,) = Engine(observers=[kept]).run([replace(job, caps=Caps(reward_calls=30))])
        assert result.interrupted
        best = {population: max(rewards) for population, rewards in kept.scored_by.items()}
        assert result.origin == Origin(max(best, key=lambda population: best[population]), 0)
        populations.add(result.origin.population)
    assert len(populations) > 1


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_estimates_that_are_scored_last_have_their_rows(line: ToyModel, batch: int) -> None:
    """Best of N scores nothing on the way: what it saved last is scored when it is stopped, in the reward's batches."""

    class Slow(ToyReward):
        batch_size = batch

    rows = set()
    for seed in range(8):
        kept, job = Kept(3), Job(Task(line, "wide", Slow()), BestOfN(), 20, seed, Sampler(Linear(), steps=5))
        engine = Engine(observers=[kept])
        with pytest.raises(Interrupted) as stopped:
            engine.run([job])
        [result] = stopped.value.results
        assert result is not None
        row = result.origin.row
        assert torch.equal(kept.last[0].particles.clean[row], result.x0)
        rows.add(row)
    assert len(rows) > 1


class Silent(Search):
    """Saves its particles if it is told to, and does not say which of them it returns."""

    name = "silent"
    saves = True

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return 4

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        return Cost(4, 4, 4)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [4]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        if self.saves:
            particles = yield from propagator.start(range(4), [0] * 4)
            yield from save(Progress(0, particles, 0, 4))
            best = particles.best()
            return Finished(best.clean[0], float(best.reward), 1.0)
        x = propagator.noise.normals(0, range(4), [0] * 4)
        yield from velocity(x, propagator.time(0))
        rewards = yield from reward(x, 1.0)
        return Finished(x[2], float(rewards[2]), 1.0)


class Unsaved(Silent):
    name = "unsaved"
    saves = False


def test_a_search_that_does_not_say_its_row(line: ToyModel, toy_reward: ToyReward) -> None:
    """The row of the highest reward stands for it; where nothing was saved there is none."""
    kept, task = Kept(), Task(line, "wide", toy_reward)
    (result,) = Engine(observers=[kept]).run([Job(task, Silent(), 4)])
    assert result.origin == Origin(0, kept.last[0].particles.best_row)
    assert torch.equal(kept.last[0].particles.clean[kept.last[0].particles.best_row], result.x0)
    (result,) = Engine().run([Job(task, Unsaved(), 4)])
    assert result.origin == Origin(0, None)
