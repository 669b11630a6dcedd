"""Searches by a surrogate: it alone is seen by the search, and the reward alone scores the result."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Interrupted, Job, JobRecord, Observer, Pool, Task
from rollflow.engine.checkpoint.file import fingerprint, load_checkpoint, save_checkpoint
from rollflow.errors import BadReward, BadSetting, NotDifferentiable
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards import RewardModel
from rollflow.rewards.mixing import RankAverage
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES, SVDD, BestOfN, Search
from rollflow.testing.reference import alone


class Smooth(ToyReward):
    """The first coordinate; it remembers how many samples it has scored."""

    name = "smooth"

    def __init__(self) -> None:
        super().__init__()
        self.scored = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.scored += len(samples)
        return super().score(samples, prompts)


class Plateaued(RewardModel):
    """The first coordinate rounded down, at most 0; it remembers how many samples it has scored."""

    name = "plateaued"
    description = "rounded down"
    bounds = (-math.inf, 0.0)
    surrogate: ClassVar[type[RewardModel]] = Smooth

    def __init__(self, fails: bool = False) -> None:
        self.scored, self.fails = 0, fails

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.fails:
            raise ValueError("it is broken")
        self.scored += len(samples)
        return samples[:, 0].floor().clamp(max=0)


def task_of(line: ToyModel, reward: RewardModel | None = None, held_out: tuple[RewardModel, ...] = ()) -> Task:
    reward = reward or Plateaued()
    return Task(line, "left", reward, held_out, reward.own_surrogate)


SAMPLER = Sampler(Linear(), steps=4)


@pytest.mark.parametrize("search", [SVDD(streams=2), BestOfN(), SEARCHES.make("rbf(initial=3)")], ids=lambda s: s.name)
def test_the_sample_is_that_of_a_search_by_the_surrogate(line: ToyModel, search: Search) -> None:
    """With the account and the samples of that search; the reward scores one sample, the returned one."""
    task = task_of(line)
    [plain] = Engine().run([Job(Task(line, "left", Smooth()), search, 60, 3, SAMPLER)])
    [result] = Engine().run([Job(task, search, 60, 3, SAMPLER)])
    assert torch.equal(result.sample, plain.sample)
    assert result.spent == plain.spent
    assert (result.trace, result.origin) == (plain.trace, plain.origin)
    assert result.surrogate == result.objective == plain.reward == plain.objective
    assert result.reward == min(0.0, math.floor(plain.reward))
    assert (plain.surrogate, plain.parts, result.parts) == (None, {}, {})
    assert isinstance(task.reward, Plateaued)
    assert isinstance(task.surrogate, Smooth)
    assert task.reward.scored == 1
    assert task.surrogate.scored == result.spent.reward_calls + 3  # of the trial on one and two samples


def test_the_engine_is_drive(line: ToyModel) -> None:
    job = Job(task_of(line), SVDD(streams=2), 60, 3, SAMPLER)
    expected = alone(job)
    [result] = Engine().run([job])
    assert torch.equal(result.x0, expected.best.x0)
    assert result.surrogate == expected.best.reward
    assert result.spent == expected.spent


def test_the_record_compares_by_the_reward(line: ToyModel) -> None:
    [result] = Engine().run([Job(task_of(line), BestOfN(), 40, 1, SAMPLER)])
    record = result.record()
    assert (record.reward, record.surrogate) == (result.reward, result.surrogate)
    assert record.trace == ((result.spent.nfe, result.reward),)
    again = JobRecord.from_json(record.to_json())
    assert (again.reward, again.surrogate, again.trace) == (record.reward, record.surrogate, record.trace)
    content = result.content()
    assert (content["reward_name"], content["surrogate_name"]) == ("plateaued", "smooth")
    assert (content["reward"], content["surrogate"]) == (result.reward, result.surrogate)
    [plain] = Engine().run([Job(Task(line, "left", Plateaued()), BestOfN(), 40, 1, SAMPLER)])
    assert not {"surrogate", "surrogate_name"} & plain.content().keys()


def test_a_pickled_result_still_knows(line: ToyModel) -> None:
    [result] = Engine().run([Job(task_of(line), BestOfN(), 40, 1, SAMPLER)])
    read = pickle.loads(pickle.dumps(result))
    assert (read.job.task.objective.name, read.job.task.reward.name) == ("smooth", "plateaued")
    assert (read.reward, read.objective) == (result.reward, result.objective)


def test_jobs_share_the_calls_of_one_surrogate(line: ToyModel) -> None:
    reward = Plateaued()
    assert reward.own_surrogate is reward.own_surrogate
    assert task_of(line, reward).surrogate is task_of(line, reward).surrogate
    assert Smooth().own_surrogate is None


def test_guidance_follows_the_surrogate(line: ToyModel) -> None:
    guided = replace(SAMPLER, guidance=DPS())
    [result] = Engine().run([Job(task_of(line), SVDD(), 60, 0, guided)])
    assert result.spent.backward_passes > 0
    with pytest.raises(NotDifferentiable, match="'plateaued'"):
        Job(Task(line, "left", Plateaued()), SVDD(), 60, 0, guided)


class _Stop(Observer):
    """Ctrl-C after the second step; it keeps the last checkpoint."""

    def __init__(self) -> None:
        self.last: Any = None
        self.steps = 0

    def saved(self, *args: Any) -> None:
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt

    def checkpointed(self, job: Job, checkpoint: Any) -> None:
        self.last = checkpoint


def test_it_resumes_and_a_checkpoint_tells_it_apart(line: ToyModel, tmp_path: Any) -> None:
    job, stop = Job(task_of(line), SVDD(streams=1), 60, 3, SAMPLER), _Stop()
    [expected] = Engine().run([job])
    with pytest.raises(Interrupted) as interrupted:
        Engine(observers=[stop]).run([job])
    [early] = interrupted.value.results
    assert early is not None
    assert early.reward == min(0.0, math.floor(early.objective))
    save_checkpoint(job, stop.last, tmp_path / "one")
    [result] = Engine().run([replace(job, resume=load_checkpoint(job, tmp_path / "one"))])
    assert torch.equal(result.sample, expected.sample)
    assert (result.reward, result.surrogate, result.spent) == (expected.reward, expected.surrogate, expected.spent)
    without = replace(job, task=replace(job.task, surrogate=None))
    assert fingerprint(job)["surrogate"] == "smooth"
    assert {**fingerprint(without), "surrogate": "smooth"} == fingerprint(job)


def test_a_pool_stops_at_the_reward(line: ToyModel) -> None:
    """Rounds end where the reward has its highest value, whatever the surrogate's; none of the surrogate exists."""
    jobs = [Job(task_of(line), BestOfN(), 40, seed, SAMPLER) for seed in range(6)]
    results = Engine().run(jobs, pool=Pool(rounds=(0.2, 0.4)))
    assert {len(result.rounds) > 1 for result in results} == {True, False}
    for result in results:
        assert all(one.reward < 0 for one in result.rounds[:-1])
    assert sum(result.spent.nfe for result in results) <= 240


def test_a_reward_that_fails_at_the_end_fails_the_job(line: ToyModel) -> None:
    [ended] = Engine().stream([Job(task_of(line, Plateaued(fails=True)), BestOfN(), 40, 1, SAMPLER)])
    assert isinstance(ended.error, BadReward)
    assert str(ended.error) == "reward 'plateaued' did not score the sample: ValueError: it is broken"


def test_what_makes_no_sense(line: ToyModel) -> None:
    ranked = RankAverage((Plateaued(), Smooth()))
    with pytest.raises(BadSetting, match="'rank-average' compares samples with earlier ones"):
        Task(line, "left", ranked, (), Smooth())
    with pytest.raises(BadSetting, match="surrogate must be a RewardModel"):
        Task(line, "left", Plateaued(), (), "smooth")  # type: ignore[arg-type]
    [result] = Engine().run([Job(Task(line, "left", Plateaued(), (), ranked), BestOfN(), 40, 1, SAMPLER)])
    assert result.reward == min(0.0, math.floor(float(result.sample[0])))
