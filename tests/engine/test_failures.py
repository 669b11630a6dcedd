"""What goes wrong in one job stays in that job, and nothing that was found is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Linear
from rollflow.engine import Engine, Interrupted, Job, JobsFailed, Observer, Result, Spending, Task
from rollflow.errors import BadModel, BadReward, RollflowWarning
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Asking, Reward
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SVDD, BestOfN, Cost, Finished, Progress, Propagator, RolloverBudget, Search

STEPS4 = Sampler(Linear(), steps=4)


class Faulty(ToyReward):
    """Does ``fault`` to the rewards of one prompt."""

    def __init__(self, prompt: str, fault: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.prompt, self.fault = prompt, fault

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        rewards = super().score(samples, prompts).clone()
        if self.prompt in prompts:
            self.fault(rewards, torch.tensor([prompt == self.prompt for prompt in prompts]).nonzero()[:, 0])
        return rewards


def poison(value: float) -> Callable[[Tensor, Tensor], None]:
    """The second sample of the prompt gets ``value``."""

    def fault(rewards: Tensor, rows: Tensor) -> None:
        rewards[rows[1]] = value

    return fault


def run_beside_others(model: ToyModel, judge: ToyReward, alone: Callable[[Job], Any]) -> Exception:
    """Three jobs of which only the second may fail; its error."""
    prompts = ("left", "wide", "right")
    jobs, sound = (
        [Job(Task(model, prompt, reward), BestOfN(), 12, i, STEPS4) for i, prompt in enumerate(prompts)]
        for reward in (judge, ToyReward())
    )
    with pytest.raises(JobsFailed, match="1 of 3 jobs failed; job 1: ") as failed:
        Engine().run(jobs)
    first, none, last = failed.value.results
    assert none is None
    for result, job in ((first, sound[0]), (last, sound[2])):
        assert result is not None
        assert torch.equal(result.x0, alone(job).best.x0)
        assert result.spent == Spending(12, 12, 3, 4)
    assert list(failed.value.failures) == [1]
    return failed.value.failures[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_names_prompt_and_row(
    line: ToyModel, alone: Callable[[Job], Any], value: float
) -> None:
    """If there is no other sample; the row is the job's own, not its place in the shared call."""

    def fault(rewards: Tensor, rows: Tensor) -> None:
        rewards[rows] = value

    error = run_beside_others(line, Faulty("wide", fault), alone)
    assert isinstance(error, BadReward)
    assert f"gave {value} for row 0 of 3 of the prompt 'wide' at noise level 0.25" in str(error)


def test_a_reward_that_cannot_judge_one_prompt(line: ToyModel, alone: Callable[[Job], Any]) -> None:
    """Those whose samples were in the same call are judged again without it."""

    def fault(rewards: Tensor, rows: Tensor) -> None:
        raise LookupError("no such object")

    error = run_beside_others(line, Faulty("wide", fault), alone)
    assert isinstance(error, BadReward)
    assert str(error) == "reward 'toy' failed: LookupError: no such object"
    assert isinstance(error.__cause__, LookupError)


def test_a_prompt_that_the_model_cannot_read(
    line: ToyModel, toy_reward: ToyReward, alone: Callable[[Job], Any]
) -> None:
    prompts = ("left", "nowhere", "right")
    jobs = [Job(Task(line, p, toy_reward), SVDD(2), 24, 0, STEPS4) for p in prompts]
    with pytest.raises(JobsFailed, match="job 1: the toy model has no mixture 'nowhere'") as failed:
        Engine(3).run(jobs)
    first, none, last = failed.value.results
    assert none is None
    assert first is not None
    assert last is not None
    assert torch.equal(first.x0, alone(jobs[0]).best.x0)
    assert torch.equal(last.x0, alone(jobs[2]).best.x0)


def test_a_reward_of_the_wrong_shape(line: ToyModel) -> None:
    class Pairs(ToyReward):
        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return samples.expand(len(samples), 2)

    job, told = (
        Job(Task(line, "left", Pairs()), BestOfN(), 12, 0, STEPS4),
        r"gave shape \(1, 2\) for 1 samples; expected",
    )
    with pytest.raises(JobsFailed, match=told) as failed:
        Engine().run([job])
    assert isinstance(failed.value.failures[0], BadReward)


def test_a_model_that_breaks_down(line: ToyModel, spy: Any, toy_reward: ToyReward, alone: Callable[[Job], Any]) -> None:
    """Its jobs fail with an error that names it, those of another model finish."""
    spy.trouble, spy.fails_at = RuntimeError("no kernel image"), 2
    jobs = [Job(Task(model, "left", toy_reward), BestOfN(), 12, i, STEPS4) for i, model in enumerate((spy, line, spy))]
    told = "2 of 3 jobs failed; job 0: the network of model 'toy' failed: RuntimeError: no kernel image"
    with pytest.raises(JobsFailed, match=told) as failed:
        Engine().run(jobs)
    assert sorted(failed.value.failures) == [0, 2]
    assert isinstance(failed.value.failures[0], BadModel)
    assert failed.value.failures[0].__cause__ is spy.trouble
    survivor = failed.value.results[1]
    assert survivor is not None
    assert torch.equal(survivor.x0, alone(jobs[1]).best.x0)


class Twins(Search):
    """Two populations, of which the first breaks down before it asks for anything."""

    name = "twins"

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return 2

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        return Cost(2, 2, 2)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [1, 1]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        if propagator.noise.population == 0:
            raise ZeroDivisionError("at once")
        return (yield from propagator.finish((yield from propagator.start([0], [0]))))


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Fail instead of hanging."""

    def stop(signum: int, frame: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_population_that_fails_at_once_takes_its_twin_along(spy: Any, toy_reward: ToyReward) -> None:
    """The other populations of the job are not waited for, and the model is not asked."""
    with (
        no_longer_than(10),
        pytest.raises(JobsFailed, match="method 'twins' failed: ZeroDivisionError: at once"),
    ):
        Engine().run([Job(Task(spy, "left", toy_reward), Twins(), 2)])
    assert spy.calls == []


def test_failed_chains_are_not_evaluated_further(spy: Any) -> None:
    """When one chain fails its job, the other asks for nothing more, and other jobs go on."""

    def fault(rewards: Tensor, rows: Tensor) -> None:
        if len(rows) > 2:  # not when it is tried
            raise LookupError("no such object")

    judge = Faulty("left", fault)
    jobs = [Job(Task(spy, p, judge), RolloverBudget(2, 3), 20, 0, STEPS4) for p in ("left", "right")]
    with pytest.raises(JobsFailed):
        Engine().run(jobs)
    assert sum(call.prompts.count("left") for call in spy.calls) == 6
    assert sum(call.prompts.count("right") for call in spy.calls) == 20


class Diary(Observer):
    """Everything told, in order."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.rewards: dict[int, list[tuple[float, float]]] = {}

    def admitted(self, job: Job) -> None:
        self.lines.append(("admitted", job.seed))

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.lines.append(("scored", job.seed, population, len(rewards), spent.nfe, round(request.noise_level, 6)))
        self.rewards.setdefault(job.seed, []).append((float(rewards.max()), request.noise_level))

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.lines.append(("saved", job.seed, population, progress.step, progress.nfe_spent))

    def completed(self, job: Job, result: Result) -> None:
        self.lines.append(("completed", job.seed, result.spent.nfe))


def test_observers_are_told_in_order(line: ToyModel, toy_reward: ToyReward) -> None:
    """A step is scored, then saved; finished samples are scored at noise level 0; what is spent is up to date."""
    diary, sampler = Diary(), Sampler(VP(), steps=2)
    finish = sampler.bind(line).finish_nfe
    assert finish > 0
    job = Job(Task(line, "left", toy_reward), SVDD(1), 6 + finish, 0, sampler)
    last = round(job.dynamics.last_noise_level, 6)
    Engine(observers=[diary]).run([job])
    assert diary.lines == [
        ("admitted", 0),
        ("scored", 0, 0, 3, 3, round(job.dynamics.noise_level(0), 6)),
        ("saved", 0, 0, 0, 3),
        ("scored", 0, 0, 3, 6, last),
        ("saved", 0, 0, 1, 3),
        ("scored", 0, 0, 1, 6 + finish, 0),
        ("completed", 0, 6 + finish),
    ]


def test_all_observers_are_told_and_change_nothing(line: ToyModel, toy_reward: ToyReward) -> None:
    """Two observers hear the same of two jobs, every population of which is heard; a bare one is silent."""
    one, other = Diary(), Diary()
    jobs = [Job(Task(line, p, toy_reward), RolloverBudget(2, 2), 16, i, STEPS4) for i, p in enumerate(("left", "wide"))]
    watched = Engine(observers=[one, Observer(), other]).run(jobs)
    unwatched = Engine().run(jobs)
    assert one.lines == other.lines
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(watched, unwatched, strict=True))
    for seed in (0, 1):
        mine = [told for told in one.lines if told[1] == seed]
        assert mine[0] == ("admitted", seed)
        assert mine[-1] == ("completed", seed, 16)
        saved = [told[2:4] for told in mine if told[0] == "saved"]
        assert sorted(saved) == [(population, step) for population in (0, 1) for step in range(4)]


def test_an_estimate_that_is_no_number_is_not_the_best(spy: Any) -> None:
    """A search that scores nothing on the way, stopped: what it would be rescued with is scored, and must be finite."""

    def fault(rewards: Tensor, rows: Tensor) -> None:
        rewards[rows[rewards[rows].argmax()]] = float("nan")  # what would have been the best

    spy.trouble, spy.fails_at = KeyboardInterrupt(), 2
    sound, faulty = (
        Job(Task(spy, "wide", one), BestOfN(), 12, 0, STEPS4) for one in (ToyReward(), Faulty("wide", fault))
    )
    with pytest.raises(Interrupted) as stopped:
        Engine().run([sound])
    spy.calls.clear()
    with pytest.raises(Interrupted) as poisoned, pytest.warns(RollflowWarning, match="1 sample could not be chosen"):
        Engine().run([faulty])
    [best], [second] = stopped.value.results, poisoned.value.results
    assert best is not None
    assert second is not None
    assert second.reward < best.reward
    assert second.ineligible == {"reward": 1}
    spy.calls.clear()

    def all_faulty(rewards: Tensor, rows: Tensor) -> None:
        rewards[rows] = float("nan")

    with pytest.raises(Interrupted) as stopped:
        Engine().run([replace(faulty, task=Task(spy, "wide", Faulty("wide", all_faulty)))])
    assert stopped.value.results == (None,)
    assert isinstance(stopped.value.failures[0], BadReward)


def interrupted(spy: Any, jobs: Sequence[Job], calls: int) -> tuple[Interrupted, Diary]:
    """Ctrl-C inside the model after so many calls."""
    diary = Diary()
    spy.trouble, spy.fails_at = KeyboardInterrupt(), calls
    with pytest.raises(Interrupted) as stopped:
        Engine(observers=[diary]).run(jobs)
    return stopped.value, diary


def test_ctrl_c_keeps_the_best_so_far(spy: Any, toy_reward: ToyReward) -> None:
    """A job that is done stays done; one half way gives its best estimate and says at which noise level."""
    sampler = Sampler(VP(), steps=6)
    short = Job(Task(spy, "left", toy_reward), BestOfN(), 2, 0, Sampler(Linear(), steps=2))
    half = Job(Task(spy, "wide", toy_reward), SVDD(2), 100, 1, sampler)
    unscored = Job(Task(spy, "right", toy_reward), BestOfN(), 100, 2, sampler)
    stopped, diary = interrupted(spy, [short, half, unscored], 4)
    assert str(stopped) == "interrupted; the best samples so far are kept"
    done, best, late = stopped.results
    assert done is not None
    assert best is not None
    assert late is not None
    assert (done.interrupted, done.finished) == (False, True)
    assert (best.interrupted, best.finished) == (True, False)
    assert (best.reward, best.noise_level) == max(diary.rewards[1])
    assert best.noise_level > 0
    assert best.reward == float(toy_reward.score(best.sample[None], ["wide"]))
    assert best.spent.nfe == sum(call.prompts.count("wide") for call in spy.calls)
    assert best.spent.nfe < half.nfe
    assert best.trace[-1] == (best.spent.nfe, best.reward)
    # A search that has not scored anything yet has its latest estimates scored now.
    assert late.interrupted
    assert late.spent.reward_calls > 0
    assert late.reward == float(toy_reward.score(late.sample[None], ["right"]))


def test_ctrl_c_before_anything(spy: Any, toy_reward: ToyReward) -> None:
    stopped, _ = interrupted(spy, [Job(Task(spy, "wide", toy_reward), SVDD(1), 16, 0, STEPS4)], 0)
    assert stopped.results == (None,)
    assert stopped.failures == {}
    assert str(stopped) == "interrupted before there was a sample to keep"
