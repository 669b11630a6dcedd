"""The final choice: the last candidates of a search, the best few by the reward, and of these the best by a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Linear
from rollflow.engine import Caps, Engine, FinalChoice, Interrupted, Job, JobRecord, Observer, Result, Spending, Task
from rollflow.engine.checkpoint.file import fingerprint, load_checkpoint, save_checkpoint
from rollflow.engine.final_choice import shortlisted
from rollflow.errors import BadCheckpoint, BadSetting, BudgetExceeded
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Reward
from rollflow.rewards import RewardModel
from rollflow.rewards.mixing import RankAverage
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES
from rollflow.testing.reference import alone

MODEL_STEPS = 5


class Second(ToyReward):
    """Minus the first coordinate, so that it disagrees with the first reward as far as possible."""

    name = "second"

    def __init__(self) -> None:
        super().__init__()
        self.scored = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.scored += len(samples)
        return -super().score(samples, prompts)


class Scored(Observer):
    """All samples that were scored, by noise level."""

    def __init__(self) -> None:
        self.at: dict[float, list[tuple[Tensor, float]]] = {}

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.at.setdefault(request.noise_level, []).extend(zip(request.x0, rewards.tolist(), strict=True))


def job_of(line: ToyModel, method: str, shortlist: int, sampler: Sampler, nfe: int = 90) -> Job:
    task = Task(line, "left", ToyReward(), (), choice=FinalChoice(Second(), shortlist))
    return Job(task, SEARCHES.make(method), nfe, 4, sampler)


def without(job: Job) -> Job:
    return replace(job, task=replace(job.task, choice=None))


def ran(job: Job, observers: Sequence[Observer] = ()) -> Result:
    [result] = Engine(observers=observers).run([job])
    return result


PAID, FREE = Sampler(VP(), steps=MODEL_STEPS), Sampler(Linear(), steps=MODEL_STEPS)


@pytest.mark.parametrize(
    "method", ["bon", "svdd(streams=3)", "beam", "beam(finalists=4)", "rbf(initial=3)", "smc", "dfs"]
)
@pytest.mark.parametrize("sampler", [FREE, PAID], ids=["free", "paid"])
@pytest.mark.parametrize("shortlist", [2, 5])
def test_it_is_the_best_by_the_second_of_the_best_by_the_first(
    line: ToyModel, method: str, sampler: Sampler, shortlist: int
) -> None:
    """At the lowest noise level, whatever the search; it costs no NFE, and a call for each candidate."""
    job, scored = job_of(line, method, shortlist, sampler), Scored()
    result, plain = ran(job, [scored]), ran(without(job))
    last = sorted(scored.at[min(scored.at)], key=lambda one: -one[1])[:shortlist]
    assert result.spent.nfe == plain.spent.nfe
    second = job.task.choice.reward if job.task.choice is not None else None
    assert isinstance(second, Second)
    if len(last) == 1:  # nothing to choose
        assert (result.chosen, second.scored, result.spent) == (None, 0, plain.spent)
        assert torch.equal(result.x0, plain.x0)
        return
    x0, reward = last[-1]
    assert (result.reward, result.chosen) == (reward, -reward)
    assert torch.equal(result.x0, x0)
    assert result.noise_level == plain.noise_level
    assert second.scored == len(last)
    assert result.spent == plain.spent + Spending(reward_calls=len(last), decodes=len(last))
    assert result.trace[:-1] == plain.trace[:-1]
    own = [one.x0 for one in alone(without(job)).populations]
    assert (result.origin.row is not None) == any(torch.equal(result.x0, x0) for x0 in own)


def test_a_shortlist_of_one_chooses_nothing(line: ToyModel) -> None:
    job = job_of(line, "bon", 1, FREE)
    result, plain = ran(job), ran(without(job))
    assert torch.equal(result.x0, plain.x0)
    assert (result.chosen, result.spent, result.origin) == (None, plain.spent, plain.origin)


def test_a_relative_reward_compares_the_shortlist(line: ToyModel) -> None:
    """The mean rank by both rewards is the same for all, so that the first, the best by the first, is chosen."""
    job = job_of(line, "bon", 4, FREE)
    ranked = RankAverage((ToyReward(), Second()))
    result = ran(replace(job, task=replace(job.task, choice=FinalChoice(ranked, 4))))
    assert result.chosen == pytest.approx(0.5)
    assert torch.equal(result.x0, ran(without(job)).x0)


def test_candidates_are_those_of_the_lowest_level() -> None:
    def request(values: list[float], level: float) -> tuple[Reward, Tensor]:
        return Reward(torch.tensor(values)[:, None], level), torch.tensor(values, dtype=torch.float64)

    one = shortlisted(None, *request([1.0, 5.0, 3.0], 0.5), 2)
    assert one is not None
    assert (one.reward.tolist(), one.x0[:, 0].tolist(), one.noise_level) == ([5, 3], [5, 3], 0.5)
    more = shortlisted(one, Reward(torch.tensor([[4.0], [9.0]]), 0.5), torch.tensor([4.0, 5.0]).double(), 2)
    assert more is not None
    assert (more.reward.tolist(), more.x0[:, 0].tolist()) == ([5, 5], [5, 9])  # the first of equals first
    assert shortlisted(more, *request([7.0], 0.6), 2) is more
    lower = shortlisted(more, *request([0.0, -torch.inf], 0.4), 2)
    assert lower is not None
    assert (lower.reward.tolist(), lower.noise_level) == ([0], 0.4)
    assert shortlisted(lower, *request([-torch.inf], 0.0), 2) is lower
    assert shortlisted(None, *request([-torch.inf], 0.0), 2) is None


class Stop(Observer):
    """Ctrl-C when a step was saved; it keeps the last checkpoint."""

    def __init__(self, after: int) -> None:
        self.left, self.last = after, None

    def checkpointed(self, job: Job, checkpoint: Any) -> None:
        self.last = checkpoint
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("sampler", [FREE, PAID], ids=["free", "paid"])
@pytest.mark.parametrize("after", range(1, MODEL_STEPS + 1))
def test_it_resumes_from_every_step(line: ToyModel, tmp_path: Path, sampler: Sampler, after: int) -> None:
    job, stop = job_of(line, "svdd(streams=1)", 4, sampler), Stop(after)
    expected = ran(job)
    with pytest.raises(Interrupted):
        ran(job, [stop])
    save_checkpoint(job, stop.last, tmp_path / "one")  # type: ignore[arg-type]
    result = ran(replace(job, resume=load_checkpoint(job, tmp_path / "one")))
    assert torch.equal(result.x0, expected.x0)
    assert (result.chosen, result.spent) == (expected.chosen, expected.spent)
    assert fingerprint(job)["choice"] == "second among 4"
    with pytest.raises(BadCheckpoint, match="belongs to another job: choice was second among 4, is None"):
        load_checkpoint(without(job), tmp_path / "one")


def test_a_cap_that_leaves_no_call_for_it_ends_the_job_early(line: ToyModel) -> None:
    job = job_of(line, "bon", 4, FREE)
    plain = ran(without(job))
    result = ran(replace(job, caps=Caps(reward_calls=plain.spent.reward_calls + 3)))
    assert isinstance(result.cause, BudgetExceeded)
    assert torch.equal(result.x0, plain.x0)
    assert result.spent == plain.spent
    assert ran(replace(job, caps=Caps(reward_calls=plain.spent.reward_calls + 4))).cause is None


def test_the_record_tells_what_the_second_reward_said(line: ToyModel) -> None:
    job = job_of(line, "bon", 4, FREE)
    result = ran(job)
    record = JobRecord.from_json(result.record().to_json())
    assert (record.chosen, record.reward) == (result.chosen, result.reward)
    assert record.reward_calls == result.spent.reward_calls
    content = result.content()
    assert (content["chosen_by"], content["chosen"]) == ("second", result.chosen)
    assert not {"chosen_by", "chosen"} & ran(without(job)).content().keys()
    described = job.described.task.choice
    assert described is not None
    assert (described.reward.name, described.shortlist) == ("second", 4)


def test_what_makes_no_sense(line: ToyModel) -> None:
    ranked: RewardModel = RankAverage((ToyReward(), Second()))
    with pytest.raises(BadSetting, match="no shortlist for a final choice"):
        Task(line, "left", ranked, (), choice=FinalChoice(Second()))
    with pytest.raises(BadSetting, match="shortlist must be a whole number >= 1, not 0"):
        FinalChoice(Second(), 0)
    with pytest.raises(BadSetting, match="reward of a final choice must be a RewardModel"):
        FinalChoice("second")  # type: ignore[arg-type]
