"""Rewards, models and observers: what they raise names them, and what they write to is their own."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rollflow
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler
from rollflow.engine import Checkpoint, Engine, Interrupted, Job, JobsFailed, Observer, Result, Spending, Task
from rollflow.errors import BadModel, BadReward, NotDifferentiable, RollflowError, RollflowWarning
from rollflow.models.mixture.model import ToyModel
from rollflow.models.scenes import ScenesBase
from rollflow.requests import Reward
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.mixing import Minimum, WeightedSum
from rollflow.rewards.scoring import judged_by, rewards_of, scored
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, Progress, RolloverBudget, SearchOverPaths

STEPS4 = Sampler(Linear(), steps=4)
GUIDED = Sampler(Linear(), steps=4, guidance=DPS(0.2))


class Failing(ToyReward):
    """Raises from call number ``after`` on."""

    name = "failing"
    probed = False

    def __init__(self, error: BaseException, after: int = 0) -> None:
        super().__init__()
        self.error, self.after, self.calls = error, after, 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        if self.calls > self.after:
            raise self.error
        return super().score(samples, prompts)


class Breaking(ToyModel):
    """Raises from a call of ``where`` number ``after`` on."""

    def __init__(self, line: ToyModel, where: str, error: BaseException, after: int = 0) -> None:
        super().__init__(line.mixtures)
        self.where, self.error, self.left = where, error, after

    def _count(self, where: str) -> None:
        if where == self.where:
            self.left -= 1
            if self.left < 0:
                raise self.error

    def encode(self, prompt: str) -> str:
        self._count("encode")
        return super().encode(prompt)

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        self._count("velocity")
        return super().velocity(x, t, conditions)

    def decode(self, x0: Tensor) -> Tensor:
        self._count("decode")
        return super().decode(x0)


def failure(job: Job) -> Exception:
    with pytest.raises(JobsFailed) as failed:
        Engine().run([job])
    return failed.value.failures[0]


# Exceptions.


@pytest.mark.parametrize(
    "error", [KeyError("boom"), AssertionError("boom"), SystemExit("boom"), RecursionError("boom")]
)
def test_what_a_reward_raises_names_it(line: ToyModel, error: BaseException) -> None:
    told = failure(Job(Task(line, "left", Failing(error)), SVDD(2), 32, 0, STEPS4))
    assert isinstance(told, BadReward)
    assert str(told).startswith("reward 'failing' failed: ")
    assert "boom" in str(told)
    assert told.__cause__ is error


@pytest.mark.parametrize("where", ["encode", "velocity", "decode"])
@pytest.mark.parametrize("error", [KeyError("boom"), SystemExit(0)], ids=["error", "exit"])
def test_what_a_model_raises_names_it(line: ToyModel, where: str, error: BaseException) -> None:
    told = failure(Job(Task(Breaking(line, where, error), "left", ToyReward()), SVDD(2), 32, 0, STEPS4))
    assert isinstance(told, BadModel)
    assert "model 'toy' failed" in str(told)
    assert told.__cause__ is error


def test_a_prompt_that_cannot_be_read_is_a_value_error(line: ToyModel) -> None:
    with pytest.raises(ValueError, match="the toy model has no mixture 'nowhere'"):
        rollflow.generate("nowhere", model=line, reward=ToyReward(), nfe=100)


def test_wrong_shapes_of_a_model_are_told(line: ToyModel) -> None:
    class Flat(ToyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            return super().velocity(x, t, conditions)[:, 0]

    told = failure(Job(Task(Flat(line.mixtures), "left", ToyReward()), SVDD(2), 32, 0, STEPS4))
    assert isinstance(told, BadModel)
    assert str(told) == "velocity of model 'toy' gave (8,); expected shape (8, 1)"


@pytest.mark.parametrize("error", [ValueError("full"), SystemExit(0)], ids=["error", "exit"])
def test_an_observer_that_fails_is_named_and_called_no_more(line: ToyModel, error: BaseException) -> None:
    class Clumsy(Observer):
        calls = 0

        def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
            self.calls += 1
            raise error

    clumsy, job = Clumsy(), Job(Task(line, "left", ToyReward()), SVDD(2), 32, 0, STEPS4)
    with pytest.warns(
        RollflowWarning, match="observer Clumsy failed in 'scored' and is not called again; the run continues"
    ):
        [result] = Engine(observers=[clumsy]).run([job])
    assert clumsy.calls == 1
    assert torch.equal(result.x0, Engine().run([job])[0].x0)


# A job that fails late.


@pytest.mark.parametrize(
    "search", [SVDD(2), RolloverBudget(1, 4), SMC(), SearchOverPaths(1, 2)], ids=lambda search: search.name
)
@pytest.mark.parametrize("fault", ["reward", "network", "memory"])
def test_a_job_that_fails_late_keeps_its_best(line: ToyModel, search: Any, fault: str) -> None:
    error = torch.OutOfMemoryError("no room") if fault == "memory" else KeyError("boom")
    judge, model = ToyReward(), line
    judge.probed = False
    if fault == "network":
        model = Breaking(line, "velocity", error, {"svdd": 2, "smc": 2}.get(search.name, 9))
    else:
        judge = Failing(error, 2)
    job = Job(Task(model, "left", judge), search, 60, 0, STEPS4)
    [result] = Engine().run([job])
    assert result.interrupted
    assert isinstance(result.cause, BadModel if fault == "network" else BadReward)
    assert result.spent.nfe < 60
    assert result.reward == float(ToyReward().score(result.sample[None], ["left"]))
    assert result.reward == max(point.reward for point in result.trace)
    if isinstance(judge, Failing) and fault == "reward":
        assert judge.calls == 3  # it is not asked again


def test_generate_returns_the_best_of_a_search_that_fails_late(line: ToyModel) -> None:
    told = "ended early, after 60 of 100 NFE, and returns its best sample so far: reward 'failing' failed: KeyError"
    with pytest.warns(RollflowWarning, match=told):
        result = rollflow.generate(
            "left", model=line, reward=Failing(KeyError("x"), 5), held_out=[], method="svdd", nfe=100, steps=10
        )
    assert isinstance(result.cause, BadReward)
    with pytest.raises(BadReward, match="reward 'failing' failed: KeyError"):
        rollflow.generate("left", model=line, reward=Failing(KeyError("x")), method="svdd", nfe=100, steps=10)


# One number per sample.


@pytest.mark.parametrize("finish", [torch.squeeze, lambda column: column, lambda column: column[:, 0].tolist()])
def test_a_column_and_a_scalar_are_one_number_a_sample(line: ToyModel, finish: Any) -> None:
    class Predictor(ToyReward):
        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            answer: Tensor = finish(samples[:, :1])
            return answer

    jobs = [Job(Task(line, "left", judge), RolloverBudget(2, 3), 33, 0, STEPS4) for judge in (Predictor(), ToyReward())]
    ours, theirs = Engine().run(jobs)
    assert ours.reward == theirs.reward
    assert torch.equal(ours.x0, theirs.x0)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda n: [None] * n, r"gave list \[None"),
        (lambda n: ["good"] * n, r"gave list \['good'"),
        (lambda n: None, "gave NoneType None"),
        (lambda n: [0.0] * (n + 1), r"gave shape \(2,\) for 1 samples; expected one number per sample, shape \(1,\)"),
        (lambda n: torch.zeros(n, 2), r"gave shape \(1, 2\)"),
        (lambda n: 0.5 if n > 1 else [0.5], r"gave shape \(\) for 2 samples"),
        (lambda n: torch.zeros(n, dtype=torch.complex64), "gave complex numbers"),
    ],
)
def test_other_answers_are_refused_before_anything_is_spent(spy: Any, answer: Any, told: str) -> None:
    class Odd(ToyReward):
        name = "odd"

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            given: Tensor = answer(len(samples))
            return given

    with pytest.raises(BadReward, match=f"reward 'odd' {told}"):
        rollflow.generate("left", model=spy, reward=Odd(), held_out=[], nfe=100)
    assert spy.calls == []


# What is tried.


def test_a_reward_is_loaded_and_tried_once_before_the_search(line: ToyModel) -> None:
    class Timid(ToyReward):
        name = "timid"

        def __init__(self) -> None:
            super().__init__()
            self.log: list[Any] = []

        def load(self) -> None:
            self.log.append("load")

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            torch.rand(1)  # which must not change what the process draws next
            self.log.append(len(samples))
            return super().score(samples, prompts)

    judge, held = Timid(), Timid()
    before = torch.get_rng_state()
    jobs = [Job(Task(line, "left", judge, (held,)), BestOfN(), 4, i, STEPS4) for i in range(2)]
    Engine().run(jobs)
    assert judge.log == ["load", 1, 2, 2]
    assert held.log == ["load", 1, 1]
    torch.set_rng_state(before)
    quiet = Timid()
    quiet.probed = False
    list(Engine().stream([Job(Task(line, "left", quiet), BestOfN(), 4, 0, STEPS4)]))
    assert quiet.log == ["load", 1]


def test_a_reward_of_pairs_is_found_out_before_the_search(spy: Any) -> None:
    class Normed(ToyReward):
        name = "normed"

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            if len(samples) == 1:
                raise ValueError("expected more than 1 value per channel when training")
            return super().score(samples, prompts)

    told = failure(Job(Task(spy, "left", Normed()), RolloverBudget(2, 3), 33, 0, STEPS4))
    assert isinstance(told, BadReward)
    assert "expected more than 1 value per channel when training" in str(told)
    assert spy.calls == []


@pytest.mark.parametrize("attribute", ["interactive", "remote"])
def test_people_and_servers_are_not_tried(line: ToyModel, attribute: str) -> None:
    judge = Failing(KeyError("never"), 100)
    judge.probed = True
    setattr(judge, attribute, True)
    Engine(overlap=False).run([Job(Task(line, "left", judge), BestOfN(), 4, 0, STEPS4)])
    assert judge.calls == 1


# Memory.


class Crowded(ToyReward):
    """Holds ``most`` samples at once."""

    probed = False

    def __init__(self, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.sizes: list[int] = []
        self.paid = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.sizes.append(len(samples))
        if len(samples) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2 GiB")
        self.paid += len(samples)
        return super().score(samples, prompts)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_memory_that_runs_out_halves_the_batch(line: ToyModel, error: type[Exception]) -> None:
    """Each sample is paid once, and what fits is remembered for the session."""
    judge = Crowded(3, error)
    job = Job(Task(line, "left", judge), SVDD(2), 80, 0, STEPS4)
    [ours], [theirs] = Engine().run([job]), Engine().run([replace(job, task=Task(line, "left", ToyReward()))])
    assert torch.equal(ours.x0, theirs.x0)
    assert ours.spent == theirs.spent
    assert judge.paid == ours.spent.reward_calls
    assert [size for size in judge.sizes if size > 3] == [20, 10, 5]
    none = failure(Job(Task(line, "left", Crowded(0, error)), SVDD(2), 80, 0, STEPS4))
    assert isinstance(none, BadReward)
    assert "reward 'toy' failed: out of memory" in str(none)


@pytest.mark.parametrize("where", ["velocity", "decode"])
def test_memory_of_the_model_halves_its_calls(line: ToyModel, where: str) -> None:
    class Small(ToyModel):
        def __init__(self) -> None:
            super().__init__(line.mixtures)
            self.sizes: list[int] = []

        def _fit(self, rows: int, what: str) -> None:
            if what == where:
                self.sizes.append(rows)
                if rows > 4:
                    raise torch.OutOfMemoryError("out of memory")

        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            self._fit(len(x), "velocity")
            return super().velocity(x, t, conditions)

        def decode(self, x0: Tensor) -> Tensor:
            self._fit(len(x0), "decode")
            return super().decode(x0)

    for sampler in (STEPS4, GUIDED):
        for padded in (False, True):
            model, judge = Small(), ToyReward(torch.tensor([0.3]))
            jobs = [Job(Task(one, "left", judge), SVDD(2), 80, 0, sampler) for one in (model, line)]
            ours, theirs = Engine(16, padded=padded).run(jobs)
            assert torch.equal(ours.x0, theirs.x0)
            assert (ours.reward, ours.spent) == (theirs.reward, theirs.spent)
            assert max(model.sizes) > 4


# What they write to.


class Scribbler(ToyReward):
    """Writes to all that it is given, also behind torch's back."""

    name = "scribbler"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        rewards = super().score(samples.clone(), prompts)
        if samples.requires_grad:
            samples.detach().numpy()[:] = 99
            samples = samples * 1
        else:
            samples.numpy()[:] = 99
        samples.mul_(2)
        if isinstance(prompts, list):
            prompts[:] = ["overwritten"] * len(prompts)
        return rewards


class Vandal(Observer):
    """Writes to all that it is told."""

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        request.x0.zero_()
        rewards.fill_(1e9)

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        for part in progress.particles:
            if part is not None:
                part.zero_()

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        for one in checkpoint.populations:
            one.ineligible["x"] = 1
            if isinstance(one.state, Progress):
                one.state.particles.x.zero_()
            if one.best is not None:
                one.best.x0.zero_()

    def completed(self, job: Job, result: Result) -> None:
        result.sample.zero_()
        result.x0.zero_()
        result.held_out.clear()


@pytest.mark.parametrize("sampler", [STEPS4, GUIDED], ids=["free", "guided"])
@pytest.mark.parametrize("search", [BestOfN(), SVDD(2), SMC(), RolloverBudget(2, 3)], ids=lambda search: search.name)
@pytest.mark.slow
def test_nobody_changes_what_others_see(line: ToyModel, search: Any, sampler: Sampler) -> None:
    class Second(ToyReward):
        name = "second"

    class Seen(Observer):
        def __init__(self) -> None:
            self.told: list[Any] = []

        def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
            self.told.append((request.x0.tolist(), rewards.tolist()))

        def completed(self, job: Job, result: Result) -> None:
            self.told.append((result.sample.tolist(), result.held_out))

    def outcome(writing: bool) -> tuple[Result, list[Any]]:
        first: RewardModel = Scribbler() if writing else ToyReward()
        reward, seen = WeightedSum((first, Second()), (1.0, 0.5)), Seen()
        task = Task(line, "left", reward, (Scribbler(), Second()))
        observers = [Vandal(), seen, Vandal()] if writing else [seen]
        [result] = Engine(observers=observers).run([Job(task, search, 60, 0, sampler)])
        return result, seen.told

    (ours, told), (theirs, expected) = outcome(True), outcome(False)
    assert torch.equal(ours.x0, theirs.x0)
    assert torch.equal(ours.sample, theirs.sample)
    assert (ours.reward, ours.held_out, ours.trace) == (theirs.reward, theirs.held_out, theirs.trace)
    assert told == expected


def test_samples_that_are_judged_outside_a_search_stay_as_they_are() -> None:
    samples, prompts = torch.rand(3, 2), ["a", "b", "c"]
    before = samples.clone()
    assert scored(Scribbler(), samples, prompts).tolist() == before[:, 0].double().tolist()
    judged_by([Scribbler(), WeightedSum((Scribbler(), ToyReward()))], samples[:1], "a")
    Minimum((Scribbler(), ToyReward())).score(samples, prompts)
    assert torch.equal(samples, before)
    assert prompts == ["a", "b", "c"]


def test_an_answer_is_kept_whatever_becomes_of_the_memory_it_lay_in() -> None:
    class Buffered(ToyReward):
        batch_size = 1
        buffer = torch.zeros(1, dtype=torch.float64)

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            self.buffer[:] = samples[:, 0]
            return self.buffer

    samples = torch.tensor([[1.0], [2.0], [3.0]])
    assert rewards_of(Buffered(), samples, ["a"] * 3).tolist() == [1, 2, 3]


# Gradients.


def net(samples: Tensor) -> Tensor:
    return samples.sin().sum(1) * 3


class Cut(ToyReward):
    """Says that it has a gradient, of which a part is cut off."""

    def __init__(self, how: Any) -> None:
        super().__init__(torch.tensor([0.0]))
        self.how, self.bounds = how, None

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        answer: Tensor = self.how(samples)
        return answer


@pytest.mark.parametrize(
    "how",
    [
        lambda s: torch.from_numpy(net(s.detach()).numpy()) + 0.01 * s.mean(1),
        lambda s: net(s.detach()) * s.mean(1) / 10 + net(s.detach()),
        lambda s: net(s.detach()) + 0 * s.sum(1),
        lambda s: (s.detach() * s).sum(1),
        lambda s: s.sum(1) - 2 * s.detach().sum(1),
    ],
    ids=["numpy", "product", "nothing", "half", "sign"],
)
def test_a_gradient_that_is_cut_off_in_part_is_found_out(spy: Any, how: Any) -> None:
    job = Job(Task(spy, "wide", Cut(how)), SVDD(2), 60, 0, GUIDED)
    told = failure(job)
    assert isinstance(told, NotDifferentiable)
    assert "guidance cannot follow reward 'toy': along one direction its gradient is" in str(told)
    assert "but the reward changes by" in str(told)
    mixed = failure(replace(job, task=Task(spy, "wide", WeightedSum((Cut(how), ToyRewardTwo()), (1.0, 0.1)))))
    assert isinstance(mixed, NotDifferentiable)


class ToyRewardTwo(ToyReward):
    name = "two"


@pytest.mark.parametrize(
    "how",
    [
        net,
        lambda s: s.clamp(-0.1, 0.1).sum(1),
        lambda s: s.abs().sum(1),
        lambda s: s.relu().sum(1).float(),
        lambda s: (s.half() * 3).float().sum(1),
        lambda s: torch.ones(len(s)) + 0 * s.sum(1),
        lambda s: 1e-6 * s.sum(1) + 1e3,
        lambda s: 1e6 * s.square().sum(1),
        lambda s: s.sum(1) + (s.round() - s).detach().sum(1),
        lambda s: s.sum(1) * s.new_tensor(float("nan")),
    ],
    ids=["smooth", "clamp", "kink", "relu", "half", "flat", "rounding", "large", "straight-through", "nan"],
)
@pytest.mark.slow
def test_no_sound_gradient_is_refused(line: ToyModel, how: Any) -> None:
    from rollflow.engine.execution.executor import Executor
    from rollflow.engine.preparation import try_gradient

    for prompt in line.mixtures:
        try_gradient(Task(line, prompt, Cut(how)), prompt, Executor(64, 16))


@pytest.mark.parametrize("name", ["caption", "count", "judge", "caption-judge"])
@pytest.mark.slow
def test_the_gradients_of_the_scenes_rewards_are_sound(name: str) -> None:
    from rollflow.engine.execution.executor import Executor
    from rollflow.engine.preparation import try_gradient

    if name not in REWARDS.names() or not REWARDS.find(name).differentiable:
        pytest.skip("no such reward, or without gradient")
    reward, model, prompt = REWARDS.make(name), SCENES[0], "three cats on grass background"
    reward.load()
    try_gradient(Task(model, prompt, reward), model.encode(prompt), Executor(64, 16))


SCENES = [ScenesBase()]


def test_a_network_that_is_cut_off_in_part_is_found_out(line: ToyModel) -> None:
    class Short(ToyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            return super().velocity(x.detach(), t, conditions) + 0.001 * x

    told = failure(Job(Task(Short(line.mixtures), "wide", ToyReward(torch.tensor([4.0]))), SVDD(2), 60, 0, GUIDED))
    assert isinstance(told, NotDifferentiable)
    assert "of the network of model 'toy'" in str(told)


# Defaults, and results that travel.


def test_a_job_has_the_dynamics_of_generate(line: ToyModel) -> None:
    for method in (SVDD(2), SearchOverPaths(1, 2)):
        job = Job(Task(line, "left", ToyReward()), method, 100)
        plan = rollflow.Plan("left", model=line, reward=ToyReward(), method=method, nfe=100)
        assert job.sampler == plan.sampler
        assert job.sampler.interpolant == Linear()
        assert (job.sampler.kernel == Euler()) == isinstance(method, SearchOverPaths)

    class Turbo(ToyModel):
        few_step = True

    turbo = Turbo(line.mixtures)
    assert Job(Task(turbo, "left", ToyReward()), SVDD(2), 100).sampler == Sampler()
    ours = Engine().run([Job(Task(line, "left", ToyReward()), SVDD(2), 100)])[0]
    assert torch.equal(ours.x0, rollflow.generate("left", model=line, reward=ToyReward(), method="svdd", nfe=100).x0)


def test_a_result_travels_without_its_networks(line: ToyModel) -> None:
    class Heavy(ToyModel):
        def __init__(self) -> None:
            super().__init__(line.mixtures)
            self.weights, self.lock = torch.zeros(1_000_000), (lambda: None)

    class Judge(ToyReward):
        def __init__(self) -> None:
            super().__init__()
            self.lock = lambda: None

    held = Judge()
    held.name = "held"  # type: ignore[misc]
    [result] = Engine().run([Job(Task(Heavy(), "left", Judge(), (held,)), SVDD(2), 60, 7, STEPS4)])
    packed = pickle.dumps(result)
    assert len(packed) < 20_000
    again: Result = pickle.loads(packed)
    assert torch.equal(again.sample, result.sample)
    assert (again.reward, again.held_out, again.spent, again.trace) == (
        result.reward,
        result.held_out,
        result.spent,
        result.trace,
    )
    assert (again.job.search, again.job.sampler, again.job.seed) == (SVDD(2), STEPS4, 7)
    task = again.job.task
    assert (task.prompt, task.model.name, task.reward.name, task.held_out[0].name) == ("left", "toy", "toy", "held")
    assert (task.model.identity, task.reward.identity) == ("toy", "toy")
    assert math.isclose(again.job.dynamics.last_noise_level, result.job.dynamics.last_noise_level)
    with pytest.raises(JobsFailed, match="model 'toy' was left behind when its result was pickled"):
        Engine().run([again.job])
    assert result.job.task.model is not task.model

    [stopped] = Engine().run([Job(Task(line, "left", Failing(KeyError("x"), 2)), SVDD(2), 60, 0, STEPS4)])
    for error in (JobsFailed([stopped, None], {1: BadReward("why")}), Interrupted([stopped, None], {})):
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert torch.equal(copy.results[0].sample, stopped.sample)
        assert isinstance(copy.results[0].cause, BadReward)
        assert isinstance(copy, RollflowError)
