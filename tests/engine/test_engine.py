"""The engine is ``drive``, faster: the same bits whatever shares a call with what."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waiting import PATIENCE
from torch import Tensor

from rollflow.dynamics.grids import Arc, Uniform
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Cosine, Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, Heun
from rollflow.dynamics.lookahead import ODELookahead, Tweedie
from rollflow.engine import (
    Caps,
    Checkpoint,
    Engine,
    Job,
    JobsFailed,
    Observer,
    Result,
    Spending,
    Task,
    estimate_cost,
)
from rollflow.engine.background import Worker
from rollflow.errors import RewardUnavailable, RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Asking, decode, reward, velocity
from rollflow.rewards import RewardModel
from rollflow.rewards.mixing import RankAverage, Running, WeightedSum
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SVDD, BestOfN, Cost, Finished, Progress, Propagator, RolloverBudget, Search

searches: st.SearchStrategy[Search] = st.one_of(
    st.just(BestOfN()),
    st.builds(SVDD, st.integers(1, 3)),
    st.builds(RolloverBudget, st.integers(1, 3), st.integers(1, 4)),
)
samplers = st.builds(
    Sampler,
    interpolant=st.sampled_from([Linear(), VP(), Cosine()]),
    kernel=st.sampled_from([Euler(), Heun(), EulerMaruyama(), DDIM(), DDIM(0.3)]),
    grid=st.sampled_from([None, Uniform(), Arc()]),
    steps=st.integers(1, 6),
    lookahead=st.one_of(st.just(Tweedie()), st.builds(ODELookahead, st.integers(1, 3))),
    finish=st.sampled_from([None, True, False]),
)
recipes = st.tuples(searches, samplers, st.integers(0, 20), st.integers(0, 2**63 - 1), st.integers(0, 4))


class Prompted(ToyReward):
    """Judges by sample and prompt, two samples at once."""

    name = "prompted"
    batch_size = 2

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0] * torch.tensor([len(prompt) - 4.5 for prompt in prompts], dtype=samples.dtype)


class Elsewhere(Prompted):
    """Said to be computed in another process; it takes its time, another for each call."""

    remote = True
    calls = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        Elsewhere.calls += 1
        time.sleep(0.0003 * (Elsewhere.calls % 3))
        return super().score(samples, prompts)


JUDGES: list[RewardModel] = [
    Prompted(),
    ToyReward(),
    Elsewhere(),
    RankAverage((Prompted(), ToyReward())),
    WeightedSum((Elsewhere(), ToyReward()), (1.0, -0.5), Running()),
]


def make(recipe: tuple[Search, Sampler, int, int, int], line: ToyModel, plane: ToyModel) -> Job:
    """A job on one of five prompts of two models, with the smallest budget and some NFE to spare."""
    search, sampler, spare, seed, at = recipe
    model, prompt = [(model, prompt) for model in (line, plane) for prompt in model.mixtures][at]
    return Job(
        Task(model, prompt, JUDGES[seed % len(JUDGES)]),
        search,
        search.smallest_nfe(sampler.bind(model)) + spare,
        seed,
        sampler,
    )


@settings(max_examples=100)
@given(st.lists(recipes, min_size=1, max_size=5), st.integers(1, 40), st.booleans())
@pytest.mark.slow
def test_the_engine_equals_drive(
    line: ToyModel,
    plane: ToyModel,
    alone: Callable[[Job], Any],
    recipes: list[tuple[Search, Sampler, int, int, int]],
    max_rows: int,
    padded: bool,
) -> None:
    """Sample, reward, noise level and account of any jobs in any order, to the last bit; never beyond the budget."""
    jobs = [make(recipe, line, plane) for recipe in recipes]
    for job, result in zip(jobs, Engine(max_rows, padded=padded).run(jobs), strict=True):
        expected = alone(job)
        assert result.job is job
        assert torch.equal(result.x0, expected.best.x0)
        assert torch.equal(result.sample, expected.best.x0)
        assert (result.reward, result.noise_level) == expected.best[1:3]
        assert result.spent == expected.spent == estimate_cost(job.task.model, job.search, job.sampler, job.nfe)
        assert result.spent.nfe <= job.nfe
        assert not result.interrupted


@settings(max_examples=40)
@given(st.lists(recipes, min_size=2, max_size=4), st.integers(1, 40), st.booleans(), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_company_does_not_matter(
    line: ToyModel,
    plane: ToyModel,
    recipes: list[tuple[Search, Sampler, int, int, int]],
    max_rows: int,
    padded: bool,
    random: Any,
) -> None:
    """A job has the same result, trace included, alone as with others in another order and another row limit."""
    jobs = [make(recipe, line, plane) for recipe in recipes]
    shuffled = random.sample(jobs, len(jobs))
    together = {id(result.job): result for result in Engine(max_rows, padded=padded).run(shuffled)}
    for job in jobs:
        (single,) = Engine(7).run([job])
        other = together[id(job)]
        assert torch.equal(single.x0, other.x0)
        assert (single.reward, single.spent) == (other.reward, other.spent)
        assert (single.trace, single.shares) == (other.trace, other.shares)


@settings(max_examples=30)
@given(st.integers(2, 3), st.integers(0, 60), st.lists(recipes, max_size=3), st.integers(1, 40), st.booleans())
@pytest.mark.slow
def test_where_a_cap_ends_a_job_does_not_depend_on_company(
    line: ToyModel,
    plane: ToyModel,
    chains: int,
    calls: int,
    recipes: list[tuple[Search, Sampler, int, int, int]],
    max_rows: int,
    padded: bool,
) -> None:
    """Nor on whether its rewards are sent off while the model runs."""
    sampler = Sampler(Linear(), steps=4)
    task = Task(plane, "corners", Elsewhere())
    job = Job(task, RolloverBudget(chains, 3), 25 * chains, 3, sampler, Caps(reward_calls=10 * chains + calls))
    others = [make(recipe, line, plane) for recipe in recipes]
    [alone] = Engine(7, overlap=False).run([job])
    *_, ours = Engine(max_rows, padded=padded).run([*others, job])
    assert alone.interrupted == (alone.spent.reward_calls < 25 * chains)
    assert torch.equal(ours.x0, alone.x0)
    assert (ours.reward, ours.spent, ours.interrupted) == (alone.reward, alone.spent, alone.interrupted)
    assert (ours.trace, ours.shares) == (alone.trace, alone.shares)


MIXED: list[tuple[Search, Sampler, str]] = [
    (RolloverBudget(2, 3), Sampler(Linear(), steps=5), "left"),
    (SVDD(2), Sampler(VP(), steps=4), "right"),
    (BestOfN(), Sampler(Cosine(), Heun(), steps=3), "wide"),
    (RolloverBudget(1, 4), Sampler(VP(), steps=6), "wide"),
    (SVDD(1), Sampler(Linear(), DDIM(), steps=6), "left"),
]


def mixed(model: ToyModel, judge: ToyReward) -> list[Job]:
    return [
        Job(Task(model, prompt, judge), search, 60, seed, sampler)
        for seed, (search, sampler, prompt) in enumerate(MIXED)
    ]


@pytest.mark.parametrize("max_rows", [1, 4, 16, 64])
@pytest.mark.slow
def test_rows_of_all_jobs_share_calls(spy: Any, toy_reward: ToyReward, max_rows: int) -> None:
    """No call above the limit; calls with several prompts and times where it allows them; no row evaluated twice."""
    results = Engine(max_rows).run(mixed(spy, toy_reward))
    assert max(len(call.times) for call in spy.calls) <= max_rows
    assert spy.rows == sum(result.spent.nfe for result in results)
    assert any(len(set(call.prompts)) > 1 and len(set(call.times)) > 2 for call in spy.calls) == (max_rows > 2)


@pytest.mark.slow
def test_sharing_saves_calls(spy: Any, toy_reward: ToyReward, alone: Callable[[Job], Any]) -> None:
    """As many calls as the job with the most needs, not as all of them in turn."""
    jobs = mixed(spy, toy_reward)
    each = []
    for job in jobs:
        before = len(spy.calls)
        alone(job)
        each.append(len(spy.calls) - before)
    before = len(spy.calls)
    Engine(64).run(jobs)
    assert max(each) <= len(spy.calls) - before < sum(each) / 2


def test_jobs_of_different_rewards_share_velocity_calls(spy: Any) -> None:
    """Which reward will judge a state is nothing to the model."""
    sampler = Sampler(Linear(), steps=4)
    jobs = [Job(Task(spy, "left", ToyReward(torch.tensor([float(i)]))), BestOfN(), 4, i, sampler) for i in range(5)]
    Engine(64).run(jobs)
    assert [len(call.times) for call in spy.calls] == [5] * 4


class Crowd(Observer):
    """The jobs in flight, and the most that ever were."""

    def __init__(self) -> None:
        self.live = self.most = 0
        self.order: list[int] = []

    def admitted(self, job: Job) -> None:
        self.live += 1
        self.most = max(self.most, self.live)
        self.order.append(job.seed)

    def completed(self, job: Job, result: Result) -> None:
        self.live -= 1


@pytest.mark.parametrize(("max_rows", "rows", "most"), [(4, 1, 4), (4, 3, 2), (1, 3, 1), (6, 2, 3), (64, 1, 30)])
@pytest.mark.slow
def test_jobs_are_admitted_only_as_rows_free_up(
    spy: Any, toy_reward: ToyReward, max_rows: int, rows: int, most: int
) -> None:
    """Just as many as fill a call, first come, first served; the model's calls are as full as can be."""
    crowd, sampler = Crowd(), Sampler(Linear(), steps=3)
    jobs = [Job(Task(spy, "left", toy_reward), BestOfN(), 3 * rows, seed, sampler) for seed in range(30)]
    results = Engine(max_rows, [crowd]).run(iter(jobs))
    assert crowd.most == most
    assert crowd.order == list(range(30))
    assert [result.job.seed for result in results] == list(range(30))
    waves = -(-30 // most)
    assert len(spy.calls) == waves * 3 * -(-most * rows // max_rows)


def test_a_finished_job_makes_room_while_others_run(spy: Any, toy_reward: ToyReward) -> None:
    """Continuous, not in waves: short jobs pass by a long one, and the short come back in their own places."""
    crowd = Crowd()
    long = Job(Task(spy, "left", toy_reward), BestOfN(), 12, 0, Sampler(Linear(), steps=12))
    short = [Job(Task(spy, "left", toy_reward), BestOfN(), 2, 1 + i, Sampler(Linear(), steps=2)) for i in range(6)]
    results = Engine(2, [crowd]).run([long, *short])
    assert [len(call.times) for call in spy.calls] == [2] * 12
    assert crowd.most == 2
    assert [result.job.seed for result in results] == list(range(7))


def test_a_stream_takes_jobs_as_there_is_room_and_tells_them_as_they_end(spy: Any, toy_reward: ToyReward) -> None:
    """Never more than fill a call beyond those that have ended; a job that fails is one that has ended."""
    taken, ended = 0, 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for seed, steps in enumerate((6, 2, 2, 2, 2, 2)):
            taken += 1
            assert taken - ended <= 2
            prompt = "nowhere" if seed == 3 else "left"
            yield Job(Task(spy, prompt, toy_reward), BestOfN(), steps, seed, Sampler(Linear(), steps=steps))

    order = []
    for one in Engine(2).stream(jobs()):
        ended += 1
        assert one.job.seed == one.place
        assert (one.result is None) == (one.place == 3) == isinstance(one.error, ValueError)
        order.append(one.place)
    assert sorted(order) == list(range(6))
    assert order[:3] == [1, 2, 3]


def test_computing_time_is_shared_by_rows(line: ToyModel) -> None:
    """Of a call that two jobs share a job with three of four rows has three quarters."""

    class Sleepy(ToyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            time.sleep(0.02)
            return super().velocity(x, t, conditions)

    task, sampler = Task(Sleepy(line.mixtures), "left", ToyReward()), Sampler(Linear(), steps=3)
    jobs = [Job(task, BestOfN(), 3 * rows, rows, sampler) for rows in (1, 3)]
    one, three = Engine().run(jobs)
    assert one.seconds + three.seconds >= 0.06
    assert three.seconds == pytest.approx(3 * one.seconds)


@pytest.mark.slow
def test_padded_calls_are_of_one_shape_and_change_nothing(spy: Any) -> None:
    """Whatever there is to do, of velocities, gradients and rewards; what fills a call is in no account."""

    class Sizes(ToyReward):
        probed = False
        seen: ClassVar[list[int]] = []

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            self.seen.append(len(samples))
            return super().score(samples, prompts)

    judge = Sizes()
    task, sampler = Task(spy, "left", judge), Sampler(Linear(), steps=4, guidance=DPS(0.1))
    guided = [Job(task, search, 40, 1, sampler) for search in (SVDD(2), BestOfN())]
    jobs = [*mixed(spy, judge), *guided]
    plain = Engine(8, max_grad_rows=8).run(jobs)
    spy.calls.clear()
    judge.seen.clear()
    for ours, theirs in zip(Engine(8, max_grad_rows=8, padded=True).run(jobs), plain, strict=True):
        assert torch.equal(ours.x0, theirs.x0)
        assert (ours.reward, ours.spent, ours.trace) == (theirs.reward, theirs.spent, theirs.trace)
    assert {len(call.times) for call in spy.calls} == {8}
    assert set(judge.seen) == {8}


@pytest.mark.parametrize("max_rows", [4, 16, 23])
@pytest.mark.slow
def test_no_call_is_filled_up_while_jobs_are_left(line: ToyModel, max_rows: int) -> None:
    """Whatever the sizes of requests, above the limit too: what fills a call up repeats its last row."""
    calls: dict[str, list[bool]] = {"model": [], "judge": []}

    class Model(ToyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            calls["model"].append(torch.equal(x[-1], x[-2]))
            return x / 2  # so that no two estimates are equal

    class Judge(ToyReward):
        probed = False

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            calls["judge"].append(torch.equal(samples[-1], samples[-2]))
            return super().score(samples, prompts)

    before: list[dict[str, int]] = []

    def jobs() -> Iterator[Job]:
        task, sampler = Task(Model(line.mixtures), "left", Judge()), Sampler(Linear(), EulerMaruyama(), steps=5)
        for seed, search in enumerate([SVDD(2), BestOfN(), RolloverBudget(1, 3)] * 8):
            yield Job(task, search, 60, seed, sampler)
        before.append({who: len(made) for who, made in calls.items()})

    assert all(one.result is not None for one in Engine(max_rows, padded=True).stream(jobs()))
    for who, made in calls.items():
        assert sum(made[: before[0][who]]) == 0 < before[0][who]
        assert any(made)


def test_no_jobs() -> None:
    assert Engine().run([]) == []


def test_no_rows_is_an_error() -> None:
    with pytest.raises(RollflowError, match="max_rows must be a whole number >= 1, not 0"):
        Engine(0)


class Doubled(ToyModel):
    """Decodes to twice the state, in calls that it remembers."""

    def __init__(self, mixtures: Any) -> None:
        super().__init__(mixtures)
        self.decoded: list[int] = []

    def decode(self, x0: Tensor) -> Tensor:
        self.decoded.append(len(x0))
        return 2 * x0


class Held(ToyReward):
    name = "held"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0] * 10


class Onlooker(Search):
    """Looks at five noises as the user would see them, and returns the second as the best."""

    name = "onlooker"

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return 5

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        return Cost(5, 5, 10)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [5]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        x = propagator.noise.normals(0, range(5), [0] * 5)
        yield from velocity(x, propagator.time(0))
        seen = yield from decode(x)
        assert torch.equal(seen, 2 * x)
        rewards = yield from reward(x, 1.0)
        assert torch.equal(rewards, seen[:, 0])
        return Finished(x[1], float(rewards[1]), 1.0)


def test_what_is_judged_is_what_is_decoded(line: ToyModel, toy_reward: ToyReward) -> None:
    """Decoding is split by ``max_rows``; rewards and held-out rewards see decoded samples; the result holds both."""
    model = Doubled(line.mixtures)
    job = Job(Task(model, "left", toy_reward, held_out=(Held(),)), Onlooker(), 5)
    (result,) = Engine(2).run([job])
    assert torch.equal(result.sample, 2 * result.x0)
    assert result.reward == float(result.sample[0])
    assert result.held_out == {"held": 10 * result.reward}
    assert result.spent == Spending(5, 5, 5, 11)
    assert model.decoded == [2, 1, 2, 2, 1, 2, 2, 1]  # the first to try the reward, before the search


def test_a_reward_is_given_no_more_than_its_batch(line: ToyModel) -> None:
    sizes = []

    class Small(ToyReward):
        batch_size = 3
        probed = False

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            assert len(samples) == len(prompts)
            sizes.append(len(samples))
            return super().score(samples, prompts)

    sampler = Sampler(Linear(), steps=2)
    small, plain = (
        Engine().run([Job(Task(line, "left", judge), BestOfN(), 16, 5, sampler)])[0] for judge in (Small(), ToyReward())
    )
    assert sizes == [3, 3, 2]
    assert torch.equal(small.sample, plain.sample)


def test_the_trace_rises_to_the_result(line: ToyModel, toy_reward: ToyReward) -> None:
    """A point for every rise of the best reward, at the NFE spent by then, and one at the end."""
    job = Job(Task(line, "wide", toy_reward), SVDD(2), 60, 3, Sampler(Linear(), steps=6))
    (result,) = Engine().run([job])
    *rises, end = result.trace
    assert [point.nfe for point in rises] == sorted({point.nfe for point in rises})
    assert [point.reward for point in rises] == sorted({point.reward for point in rises})
    assert len(rises) > 2
    assert end == (result.spent.nfe, rises[-1].reward)
    assert rises[0].nfe == 10


class Overlaps:
    """Holds up every reward in the background until the engine calls the model, or waits for a reward.

    Attributes:
        count: Rewards during which the model was called.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.model_calls = 0
        self._engine_waits = False
        self._changed = threading.Condition()
        submit = Worker.submit

        def held_up(worker: Worker, function: Callable[[], Any]) -> Any:
            before = self.model_calls

            def score() -> Any:
                with self._changed:
                    assert self._changed.wait_for(lambda: self.model_calls > before or self._engine_waits, PATIENCE)
                self.count += self.model_calls > before
                return function()

            return submit(worker, score)

        def waited(answers: Any, timeout: float) -> Any:
            with self._changed:
                self._engine_waits = True
                self._changed.notify_all()
            done = wait(answers, timeout)
            self._engine_waits = False
            return done

        monkeypatch.setattr(Worker, "submit", held_up)
        monkeypatch.setattr("rollflow.engine.background.wait", waited)

    def model_called(self) -> None:
        with self._changed:
            self.model_calls += 1
            self._changed.notify_all()


@pytest.mark.parametrize("overlap", [True, False])
def test_rewards_from_elsewhere_are_computed_while_the_model_runs(
    line: ToyModel, overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two chains is scored while the other moves; the results are those without overlap."""
    overlaps = Overlaps(monkeypatch)

    class Watched(ToyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            overlaps.model_called()
            return super().velocity(x, t, conditions)

    job = Job(
        Task(Watched(line.mixtures), "left", Elsewhere()), RolloverBudget(2, 3), 24, 3, Sampler(Linear(), steps=3)
    )
    [result] = Engine(overlap=overlap).run([job])
    [plain] = Engine().run([replace(job, task=Task(line, "left", Prompted()))])
    assert (result.reward, result.spent) == (plain.reward, plain.spent)
    assert overlaps.count >= 10 if overlap else overlaps.count == 0


def test_a_device_is_elsewhere_too(line: ToyModel) -> None:
    cpu, first, second = torch.device("cpu"), torch.device("cuda"), torch.device("cuda:1")
    judge = ToyReward()
    assert not judge.overlaps(cpu)
    judge.device = first
    assert [judge.overlaps(device) for device in (cpu, first, torch.device("cuda:0"), second, None)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert WeightedSum((judge, Prompted())).overlaps(second)


class Away(Elsewhere):
    """Does not answer after the first calls."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.answers -= 1
        if self.answers < 0:
            raise RewardUnavailable("no answer")
        return super().score(samples, prompts)


@pytest.mark.parametrize("overlap", [True, False])
def test_a_reward_that_goes_away_ends_a_job_with_its_best(line: ToyModel, overlap: bool) -> None:
    """What was scored is there; a job that has nothing yet fails; others, and held-out rewards, do not matter."""
    sampler = Sampler(Linear(), steps=4)
    begun = Job(Task(line, "left", Away(4), (Away(0),)), SVDD(1), 16, 0, sampler)
    sound = Job(Task(line, "left", Prompted(), (Away(0),)), SVDD(1), 16, 0, sampler)
    nothing = Job(Task(line, "left", Away(0)), SVDD(1), 16, 0, sampler)
    with pytest.raises(JobsFailed, match="1 of 3 jobs failed; job 2: no answer") as failed:
        Engine(overlap=overlap).run([begun, sound, nothing])
    early, whole, none = failed.value.results
    assert none is None
    assert early is not None
    assert whole is not None
    assert early.interrupted
    assert isinstance(early.cause, RewardUnavailable)
    assert early.spent.nfe < 16
    assert early.reward == early.trace[-1].reward
    assert (whole.interrupted, whole.cause) == (False, None)
    assert math.isnan(whole.held_out["prompted"])
    assert whole.missing == {"prompted": "RewardUnavailable: no answer"}


class Choosy(Prompted):
    """Refuses to judge one prompt."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if "wide" in prompts:
            raise RewardUnavailable("not this one")
        return super().score(samples, prompts)


@pytest.mark.parametrize("remote", [True, False])
def test_one_who_is_refused_does_not_end_the_others(line: ToyModel, remote: bool) -> None:
    judge = Choosy()
    judge.remote = remote
    jobs = [Job(Task(line, p, judge), SVDD(1), 16, 0, Sampler(Linear(), steps=4)) for p in ("left", "wide", "right")]
    with pytest.raises(JobsFailed, match="1 of 3 jobs failed; job 1: not this one") as failed:
        Engine().run(jobs)
    first, _, last = failed.value.results
    assert first is not None
    assert last is not None
    assert (first.spent.nfe, first.interrupted, last.interrupted) == (16, False, False)


def test_a_held_out_reward_that_fails_costs_nothing_else(line: ToyModel) -> None:
    """Whatever the error: the search is done and its sample there."""

    class Strict(Held):
        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            raise ValueError("asks for nothing")

    [result] = Engine().run(
        [Job(Task(line, "left", ToyReward(), (Strict(),)), BestOfN(), 4, 0, Sampler(Linear(), steps=4))]
    )
    assert math.isnan(result.held_out["held"])
    assert result.missing == {"held": "ValueError: asks for nothing"}


@pytest.mark.slow
def test_populations_of_a_relative_reward_are_compared_with_each_other(plane: ToyModel) -> None:
    """Where all parts agree, so does the choice between chains, though each ranked its own samples alone."""

    class First(ToyReward):
        name = "first"

    class Cubed(ToyReward):
        name = "cubed"

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return super().score(samples, prompts) ** 3

    task = Task(plane, "corners", RankAverage((First(), Cubed())))
    ends: list[Finished] = []

    class Ends(Observer):
        def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
            ends[:] = [one.state for one in checkpoint.populations if isinstance(one.state, Finished)]

    for seed in range(20):
        [result] = Engine(8, [Ends()]).run([Job(task, RolloverBudget(2, 3), 24, seed, Sampler(Linear(), steps=3))])
        assert len(ends) == 2
        assert float(result.x0[0]) == max(float(end.x0[0]) for end in ends)


class Crowded(Elsewhere):
    """Notices when it is called from two threads at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.most = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.002)
        rewards = super().score(samples, prompts)
        self.inside -= 1
        return rewards


def test_a_reward_is_never_called_from_two_threads_at_once(line: ToyModel) -> None:
    judge = Crowded()
    mixture = WeightedSum((judge, ToyReward()))
    sampler = Sampler(Linear(), steps=3)
    jobs = [Job(Task(line, "left", mixture), RolloverBudget(2, 2), 20 + 4 * i, i, sampler) for i in range(6)]
    Engine(4).run(jobs)
    assert judge.most == 1
