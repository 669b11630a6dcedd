"""Models, rewards and observers that do what they should not: it is told or undone, and nothing else changes."""

from __future__ import annotations

import asyncio
import math
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rollflow.api import Plan
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import DDIM, Euler, Heun
from rollflow.dynamics.lookahead import Tweedie
from rollflow.engine import Engine, Interrupted, Job, JobsFailed, Observer, Result, Task
from rollflow.errors import (
    BadModel,
    BadReward,
    BadSetting,
    NotDifferentiable,
    RewardUnavailable,
    RollflowError,
    RollflowWarning,
)
from rollflow.models.base import FlowModel
from rollflow.rewards.base import RewardModel
from rollflow.rewards.mixing import Lexicographic, Minimum, Mixture, WeightedSum
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, CoDe, Progress, RolloverBudget, Search
from rollflow.search.propagator import Propagator


class Pictures(FlowModel):
    """Pixels of 3 x 4 x 4, each N(0, 0.5^2), with their exact velocity on the linear interpolant."""

    name = "pictures"
    description = "pixels"
    shape = (3, 4, 4)
    dtype = torch.float64

    def encode(self, prompt: str) -> str:
        return prompt

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        t = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return (x - 0.25 * (1 - t) / (0.25 * (1 - t) ** 2 + t**2) * x) / t

    def decode(self, x0: Tensor) -> Tensor:
        return (x0 + 0.5).clamp(0, 1)


class Mean(RewardModel):
    """Mean of the pixels, of which ``told`` makes the answer."""

    name = "mean"
    description = "mean of the pixels"
    differentiable = True

    def __init__(self, told: Callable[[Tensor], Any] = lambda answer: answer, name: str = "mean") -> None:
        self.told = told
        self.name = name  # type: ignore[misc]

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Any:
        return self.told(samples.mean(tuple(range(1, samples.ndim))))


def job(model: FlowModel | None = None, reward: RewardModel | None = None, **chosen: Any) -> Job:
    held_out = chosen.pop("held_out", ())
    given = {"search": SVDD(), "nfe": 100, **chosen}
    return Job(Task(model or Pictures(), "p", reward or Mean(), held_out), **given)


def run(model: FlowModel | None = None, reward: RewardModel | None = None, **chosen: Any) -> Result:
    return Engine().run([job(model, reward, **chosen)])[0]


def failure(*given: Any, **chosen: Any) -> Exception:
    with pytest.raises(JobsFailed) as failed:
        run(*given, **chosen)
    return failed.value.failures[0]


def same(one: Result, other: Result) -> bool:
    return torch.equal(one.x0, other.x0) and torch.equal(one.sample, other.sample) and one.reward == other.reward


@pytest.mark.parametrize("what", ["velocity", "decode"])
@pytest.mark.parametrize(
    "made",
    [
        lambda given: given.to("meta"),
        lambda given: given.long(),
        lambda given: given > 0,
        lambda given: given.to(torch.complex128),
        lambda given: given.numpy(),
        lambda given: given.sum(),
    ],
    ids=["meta", "whole", "truth", "complex", "numpy", "scalar"],
)
def test_what_is_no_batch_of_numbers_is_blamed_on_the_model(what: str, made: Callable[[Tensor], Any]) -> None:
    class Odd(Pictures):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            v = super().velocity(x, t, conditions)
            return made(v) if what == "velocity" else v

        def decode(self, x0: Tensor) -> Tensor:
            samples = super().decode(x0)
            return made(samples) if what == "decode" else samples

    error = failure(Odd())
    assert isinstance(error, BadModel)
    assert "of model 'pictures'" in str(error)


def test_velocities_take_the_dtype_of_states() -> None:
    class Narrow(Pictures):
        dtype = torch.float32

        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            return super().velocity(x.double(), t, conditions)

    assert run(Narrow()).x0.dtype == torch.float32


@pytest.mark.parametrize("search", [BestOfN(), SVDD(), SMC(), RolloverBudget(initial=3), CoDe()], ids=lambda s: s.name)
@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.slow
def test_a_model_may_use_its_memory_again(search: Search, remote: bool) -> None:
    class Reusing(Pictures):
        def __init__(self) -> None:
            self.kept = torch.empty(2, 100, *self.shape, dtype=torch.float64)

        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            self.kept[0, : len(x)] = super().velocity(x, t, conditions)
            return self.kept[0, : len(x)]

        def decode(self, x0: Tensor) -> Tensor:
            self.kept[1, : len(x0)] = super().decode(x0)
            return self.kept[1, : len(x0)]

    class Far(Mean):
        def __init__(self) -> None:
            super().__init__()
            self.remote = remote

    for kernel in (Euler(), Heun()):
        chosen: dict[str, Any] = {"search": search, "nfe": 160, "sampler": Sampler(kernel=kernel, steps=5)}
        got = Engine(max_rows=3).run([job(Reusing(), Far(), **chosen)])[0]
        assert same(got, Engine(max_rows=3).run([job(**chosen)])[0])


def test_a_graph_of_the_model_or_the_reward_is_let_go() -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    class Tracking(Pictures):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            with torch.enable_grad():
                return super().velocity(x, t, conditions) * weight

        def decode(self, x0: Tensor) -> Tensor:
            with torch.enable_grad():
                return super().decode(x0) * weight

    result = run(Tracking(), Mean(torch.enable_grad()(lambda answer: answer * weight)))
    assert not result.x0.requires_grad
    assert not result.sample.requires_grad
    assert same(result, run())


@pytest.mark.parametrize("shape", [(), (3, 4, 4)])
def test_samples_of_one_number_are_examined_too(shape: tuple[int, ...]) -> None:
    class Scalars(Pictures):
        def decode(self, x0: Tensor) -> Tensor:
            sample = x0 if x0.ndim == 1 else x0.mean((1, 2, 3))
            return torch.where(sample > 0, math.nan, sample)

    class Blind(Mean):
        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return samples.nan_to_num(1e6)

    model: Any = Scalars()
    model.shape = shape
    with pytest.warns(RollflowWarning, match="decoder"):
        result = run(model, Blind())
    assert result.reward <= 0


ODD = [GeneratorExit(), asyncio.CancelledError(), SystemExit(0), StopIteration(), RecursionError(), UserWarning("w")]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("remote", [False, True])
def test_whatever_a_reward_raises_late_is_a_cause(error: BaseException, remote: bool) -> None:
    calls = []

    def told(answer: Tensor) -> Tensor:
        calls.append(len(answer))
        if len(calls) == 5:
            raise error
        return answer

    reward = Mean(told)
    reward.remote = remote
    result = run(reward=reward)
    assert isinstance(result.cause, BadReward)
    assert type(error).__name__ in str(result.cause) or str(error) in str(result.cause)
    held_out = Mean(lambda answer: (_ for _ in ()).throw(error), "other")
    assert math.isnan(run(held_out=(held_out,)).held_out["other"])


@pytest.mark.parametrize("event", ["admitted", "scored", "saved", "checkpointed", "completed"])
@pytest.mark.parametrize("error", [GeneratorExit(), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_whatever_an_observer_raises_is_warned_of(event: str, error: BaseException) -> None:
    def fail(self: Observer, *given: Any) -> None:
        raise error

    observer = type("Odd", (Observer,), {event: fail})()
    with pytest.warns(RollflowWarning, match=f"Odd failed in '{event}'"):
        result = Engine(observers=[observer]).run([job()])[0]
    assert same(result, run())


@pytest.mark.parametrize(
    "change",
    [
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_device("meta"),
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.set_num_threads(torch.get_num_threads() + 1),
        lambda: torch.set_grad_enabled(False),
    ],
    ids=["dtype", "device", "determinism", "threads", "gradients"],
)
@pytest.mark.parametrize("who", ["reward", "model", "observer"])
@pytest.mark.slow
def test_what_a_callee_sets_for_all_of_torch_ends_with_it(change: Callable[[], Any], who: str) -> None:
    def settings() -> list[Any]:
        return [
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        ]

    class Dependent(Pictures):
        dtype = torch.float32

        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            v = super().velocity(x, t, conditions) + 1e-3 * torch.tensor(0.1)
            if who == "model":
                change()
            return v

    class Changing(Observer):
        def scored(self, *given: Any) -> None:
            change()

    def told(answer: Tensor) -> Tensor:
        if who == "reward":
            change()
        return answer

    before, plain = settings(), type("Plain", (Dependent,), {})()
    who, asked = "nobody", who
    expected = run(plain)
    who = asked
    got = Engine(observers=[Changing()] if who == "observer" else []).run([job(Dependent(), Mean(told))])[0]
    assert settings() == before
    assert same(got, expected)


@pytest.mark.parametrize(
    "told",
    [
        lambda answer: np.ascontiguousarray(answer.numpy()[::-1])[::-1],
        lambda answer: answer.numpy().astype(">f8"),
        lambda answer: np.broadcast_to(answer.numpy(), answer.shape),
        lambda answer: list(answer),
        lambda answer: answer.to_sparse(),
    ],
    ids=["strides", "bytes", "read-only", "list", "sparse"],
)
def test_numbers_are_numbers_however_they_lie_in_memory(told: Callable[[Tensor], Any]) -> None:
    assert same(run(reward=Mean(told)), run())


@pytest.mark.parametrize(
    "told",
    [
        lambda answer: answer.to("meta"),
        lambda answer: [10**400] * len(answer),
        lambda answer: b"\0" * len(answer),
        lambda answer: np.array(answer.numpy(), "datetime64[s]"),
        lambda answer: (one for one in answer),
        lambda answer: np.ma.masked_all(len(answer)),  # type: ignore[no-untyped-call]
    ],
    ids=["meta", "too large", "bytes", "dates", "generator", "masked"],
)
def test_what_is_no_number_is_refused(told: Callable[[Tensor], Any]) -> None:
    error = failure(reward=Mean(told))
    assert isinstance(error, BadReward)
    assert "reward 'mean' gave" in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("batch_size", None), ("batch_size", 2.5), ("bounds", (1, 0)), ("bounds", "ab"), ("bounds", 5)],
)
def test_what_a_reward_says_of_itself_is_checked(name: str, value: Any) -> None:
    reward = Mean()
    setattr(reward, name, value)
    with pytest.raises(BadSetting, match=f"reward 'mean': {name} must be"):
        run(reward=reward)


def test_a_held_out_reward_that_gives_no_number_says_so() -> None:
    result = run(held_out=(Mean(lambda answer: answer * math.inf, "other"),))
    assert math.isnan(result.held_out["other"])
    assert result.missing == {"other": "it gave inf"}


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    "mix",
    [Minimum, lambda parts: Lexicographic(parts, (100.0, 0.0)), lambda parts: WeightedSum(parts, (1.0, 0.0))],
    ids=["minimum", "lexicographic", "sum"],
)
@pytest.mark.slow
def test_no_mixture_hides_a_part_that_is_not_finite(
    mix: Callable[[tuple[RewardModel, ...]], Mixture], value: float, guided: bool
) -> None:
    bad = Mean(lambda answer: torch.where(answer > 0.5, value, answer), "bad")
    inner = mix((Mean(lambda answer: answer + 0.1, "good"), bad))
    sampler = Sampler(Linear(), DDIM(0.5), steps=5, guidance=DPS(0.1) if guided else None)
    for reward in (inner, WeightedSum((inner, Mean(name="third")))):
        with pytest.warns(RollflowWarning, match="gave"):
            result = run(reward=reward, sampler=sampler)
        assert float(result.sample.mean()) <= 0.5
        assert result.ineligible["reward"] > 0


def out_of_memory() -> Exception:
    error = ValueError("it cannot be computed")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    return error


@pytest.mark.parametrize("where", ["decode", "reward", "graph"])
def test_memory_for_one_row_is_enough(where: str) -> None:
    held: list[int] = []

    class Crowded(Pictures):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            held[:] = [len(x)] if x.requires_grad else []
            return super().velocity(x, t, conditions)

        def decode(self, x0: Tensor) -> Tensor:
            if where == "decode" and len(x0) > 1:
                raise out_of_memory()
            return super().decode(x0)

    def told(answer: Tensor) -> Tensor:
        if (where == "reward" and len(answer) > 1) or (where == "graph" and answer.requires_grad and held[0] > 1):
            raise out_of_memory()
        return answer

    sampler = Sampler(steps=5, guidance=DPS(0.1))
    got = run(Crowded(), Mean(told), search=BestOfN(), sampler=sampler)
    assert got.cause is None
    assert same(got, run(search=BestOfN(), sampler=sampler))


RED, BLUE = (slice(None), 0), (slice(None), 1)


@pytest.mark.parametrize(
    "score",
    [
        lambda s: s[RED].mean((1, 2)) + s[BLUE].detach().mean((1, 2)),
        lambda s: s[RED].mean((1, 2)) * s[BLUE].mean((1, 2)).detach(),
        lambda s: torch.cat([s[:1], s[1:].detach()]).mean((1, 2, 3)),
        lambda s: torch.cat([s[: len(s) // 2].detach(), s[len(s) // 2 :]]).mean((1, 2, 3)),
    ],
    ids=["summand", "factor", "all but the first", "first half"],
)
def test_a_gradient_that_is_cut_off_for_a_branch_or_some_rows_is_refused(score: Callable[[Tensor], Tensor]) -> None:
    class Cut(Mean):
        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            return score(samples)

    error = failure(reward=Cut(), sampler=Sampler(steps=4, guidance=DPS(0.1)))
    assert isinstance(error, NotDifferentiable)


@pytest.mark.filterwarnings("ignore:model .* decodes pixels")
@pytest.mark.slow
def test_most_of_many_cut_branches_are_found() -> None:
    class Plain(Pictures):
        def decode(self, x0: Tensor) -> Tensor:
            return x0

    class Cut(Mean):
        def __init__(self, seed: int) -> None:
            super().__init__()
            draw = torch.Generator().manual_seed(seed)
            self.followed, self.cut = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=draw)

        def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
            answer: Tensor = (samples * self.followed + samples.detach() * self.cut).sum((1, 2, 3))
            return answer

    def found(seed: int) -> bool:
        try:
            run(Plain(), Cut(seed), search=BestOfN(), nfe=4, sampler=Sampler(steps=2, guidance=DPS(0.1)))
        except JobsFailed as failed:
            return isinstance(failed.failures[0], NotDifferentiable)
        return False

    assert sum(map(found, range(40))) >= 37


def test_an_observer_cannot_change_what_is_resumed() -> None:
    kept, whole = [], job()

    class Keeping(Observer):
        def checkpointed(self, job: Job, checkpoint: Any) -> None:
            kept.append(checkpoint)

    class Writing(Observer):
        def admitted(self, job: Job) -> None:
            assert job.resume is not None
            for one in job.resume.populations:
                assert isinstance(one.state, Progress)
                one.state.particles.x.fill_(7)
                one.state.particles.clean.fill_(7)

    expected = Engine(observers=[Keeping()]).run([whole])[0]
    resumed = job(resume=kept[len(kept) // 2])
    assert same(Engine(observers=[Writing()]).run([resumed])[0], expected)


class Heavy(Pictures):
    """Sets out from a picture, half of the way."""

    origin = torch.zeros(3, 4, 4, dtype=torch.float64)

    def __init__(self) -> None:
        self.weights = torch.zeros(1_000_000)

    def start(self, steps: int) -> float:
        return 0.3


class Gone(Mean):
    """Goes away, with an error that holds it."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        error = RewardUnavailable("gone")
        error.who = Heavy()  # type: ignore[attr-defined]
        raise error


@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
@pytest.mark.parametrize("search", [BestOfN(), SVDD(), SMC(), RolloverBudget(initial=40)], ids=lambda s: s.name)
@pytest.mark.slow
def test_a_result_is_small_when_it_travels(search: Search, interpolant: Any) -> None:
    sampler = Sampler(interpolant, steps=4, finish=True)
    for nfe in (search.smallest_nfe(sampler.bind(Heavy())), 400):
        result = run(Heavy(), search=search, nfe=nfe, sampler=sampler)
        packed = pickle.dumps(result)
        assert len(packed) < 20_000
        assert same(pickle.loads(packed), result)


class Picky(Exception):
    """Cannot be pickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("picky")
        self.both = lambda: first + second


def test_failures_are_small_and_survive_when_they_travel() -> None:
    error = failure(reward=Gone())
    for kind in (JobsFailed, Interrupted):
        packed = pickle.dumps(kind([None, None], {0: error, 1: Picky(1, 2)}))
        assert len(packed) < 20_000
        again = pickle.loads(packed)
        assert isinstance(again, kind)
        assert isinstance(again.failures[0], RewardUnavailable)
        assert str(again.failures[0]) == "gone"
        assert "picky" in str(again.failures[1])


def test_a_plan_travels_without_what_it_has_loaded() -> None:
    plan = Plan("three cats on grass background", nfe=100)
    plan.task  # noqa: B018 - loads
    packed = pickle.dumps(plan)
    assert len(packed) < 20_000
    assert pickle.loads(packed) == plan


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", None),
        ("shape", (3, 0)),
        ("shape", (3, "4")),
        ("dtype", torch.int64),
        ("dtype", "float32"),
        ("interpolant", None),
        ("rows_per_nfe", 0),
        ("start", lambda steps: math.nan),
        ("start", lambda steps: 2.0),
    ],
)
def test_what_a_model_says_of_itself_is_checked(name: str, value: Any) -> None:
    model = Pictures()
    setattr(model, name, value)
    with pytest.raises(BadSetting, match=f"(model 'pictures': {name}|{name} of the model)"):
        job(model)


def test_held_out_rewards_of_one_name_are_refused() -> None:
    with pytest.raises(BadSetting, match="held-out reward names must be distinct; got '"):
        job(held_out=(Mean(), Mean()))


@dataclass(frozen=True)
class Broken(BestOfN):
    """Asks for what nobody answers."""

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Any:
        yield "a velocity"


@dataclass(frozen=True)
class Narrow(Euler):
    """Gives one row for all."""

    def step(self, *given: Any) -> Any:
        return (yield from super().step(*given))[:1, :1]


@dataclass(frozen=True)
class Flat(Tweedie):
    """Gives one channel for all."""

    def clean(self, *given: Any) -> Any:
        return (yield from super().clean(*given))[:, :1]


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"search": Broken()}, "yielded str, which is not a request"),
        (
            {"search": BestOfN(), "sampler": Sampler(kernel=Narrow())},
            r"kernel Narrow\(\) gave \(1, 1, 4, 4\); expected shape \(\d+, 3, 4, 4\)",
        ),
        ({"sampler": Sampler(lookahead=Flat())}, r"look-ahead Flat\(\) gave"),
    ],
    ids=["search", "kernel", "look-ahead"],
)
def test_what_is_not_of_the_right_kind_or_shape_is_refused(chosen: dict[str, Any], told: str) -> None:
    error = failure(**chosen)
    assert isinstance(error, RollflowError)
    assert re.search(told, str(error))
