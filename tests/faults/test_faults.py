"""An error at any moment of a run loses no sample that was scored, and never exceeds the budget.

``pytest tests/faults/test_faults.py --kills 700`` interrupts the engine at 700 of its lines.
"""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import rollflow.engine
from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Interrupted, Job, JobsFailed, Observer, Result, Spending, Task
from rollflow.errors import RewardUnavailable, RollflowWarning
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Reward
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, RolloverBudget, Search

STEPS4 = Sampler(Linear(), steps=4)
SEARCHES: dict[str, Search] = {"svdd": SVDD(2), "rbf": RolloverBudget(2, 3), "bon": BestOfN(), "smc": SMC()}
NFE = 48
ENGINE = str(Path(rollflow.engine.__file__).parent)


def _raises(error: BaseException) -> Callable[[Tensor], Tensor]:
    def fault(answer: Tensor) -> Tensor:
        raise error

    return fault


def _first_row_nan(answer: Tensor) -> Tensor:
    changed = answer.clone()
    changed[0] = math.nan
    return changed


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "raises": _raises(LookupError("no such thing")),
    "is out of memory": _raises(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")),
    "is away": _raises(RewardUnavailable("the server does not answer")),
    "is interrupted": _raises(KeyboardInterrupt()),
    "exits": _raises(SystemExit(3)),
    "is no number": _first_row_nan,
    "has another shape": lambda answer: answer[:, None],
}


class Fault:
    """Changes the answer of one call, or of all from that call on.

    Args:
        kind: Key of ``FAULTS``.
        at: Number of the call, from 1.
        lasting: Whether all later calls fail as well.
    """

    def __init__(self, kind: str, at: int, lasting: bool) -> None:
        self.kind, self.at, self.lasting, self.calls = kind, at, lasting, 0

    def __call__(self, answer: Tensor) -> Tensor:
        self.calls += 1
        due = self.calls == self.at or (self.lasting and self.calls > self.at)
        return FAULTS[self.kind](answer) if due else answer


class FaultyModel(ToyModel):
    """A toy model with a fault in its network or its decoder."""

    network: Fault | None = None
    decoder: Fault | None = None

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        answer = super().velocity(x, t, conditions)
        return self.network(answer) if self.network else answer

    def decode(self, x0: Tensor) -> Tensor:
        answer = super().decode(x0)
        return self.decoder(answer) if self.decoder else answer


class FaultyReward(ToyReward):
    """A toy reward with a fault."""

    fault: Fault | None = None

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        answer = super().score(samples, prompts)
        return self.fault(answer) if self.fault else answer


class Witness(Observer):
    """Records the best score, and whether the job ended without being interrupted."""

    def __init__(self) -> None:
        self.best, self.completed_early = -math.inf, False

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.best = max([self.best, *rewards.tolist()])

    def completed(self, job: Job, result: Result) -> None:
        self.completed_early |= not result.interrupted


def outcome(job: Job, observers: Sequence[Observer]) -> tuple[Result | None, BaseException | None]:
    """Run a job; returns its result, also if it was interrupted or failed, and the error that was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RollflowWarning)
        try:
            [result] = Engine(8, observers).run([job])
        except (Interrupted, JobsFailed) as error:
            return error.results[0], error
    return result, None


def check(result: Result | None, witness: Witness, what: str) -> None:
    """Check that no scored sample is lost, and that the result describes its sample correctly."""
    if result is None:
        assert witness.best == -math.inf, f"{what}: a sample was lost"
        return
    assert result.interrupted <= (result.reward >= witness.best), f"{what}: not the best"
    assert not (witness.completed_early and result.interrupted), f"{what}: a job that ended was interrupted afterwards"
    assert result.sample.isfinite().all(), what
    assert result.reward == float(ToyReward().score(result.sample[None], ["wide"])), what
    assert result.spent.nfe <= NFE, what


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("where", ["network", "decoder", "reward"])
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.slow
def test_the_best_survives_whatever_goes_wrong(line: ToyModel, search: str, where: str, kind: str) -> None:
    for at in (1, 4, 7):
        for lasting in (False, True):
            model, reward, witness = FaultyModel(line.mixtures), FaultyReward(), Witness()
            fault = Fault(kind, at, lasting)
            if where == "reward":
                reward.fault = fault
            else:
                setattr(model, where, fault)
            job = Job(Task(model, "wide", reward), SEARCHES[search], NFE, 0, STEPS4)
            what = f"{search}, {where} {kind} at {at}{' and after' if lasting else ''}"
            result, error = outcome(job, [witness])
            if where == "decoder" and lasting and result is None:
                continue  # there is no sample without a decoder
            check(result, witness, what)
            assert result is None or not result.interrupted or error is not None or result.cause is not None, what


@pytest.mark.parametrize("event", ["admitted", "scored", "saved", "checkpointed", "completed"])
def test_a_disk_or_an_observer_that_fails_costs_nothing(line: ToyModel, event: str) -> None:
    class Full(Observer):
        """An observer whose disk is full."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    observer = Full()
    setattr(observer, event, full)
    job = Job(Task(line, "wide", ToyReward()), SVDD(2), NFE, 0, STEPS4)
    result, error = outcome(job, [observer])
    [whole] = Engine(8).run([job])
    assert error is None
    assert result is not None
    assert torch.equal(result.x0, whole.x0)
    assert (result.reward, result.spent) == (whole.reward, whole.spent)


@contextmanager
def interrupted_at(lines: Sequence[int]) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at some of the engine's lines, by their order of execution from 0; counts all lines."""
    count = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ENGINE) or frame.f_code.co_filename.endswith("/engine.py"):
            return None
        return local

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            count[0] += 1
            if count[0] - 1 in lines:
                raise KeyboardInterrupt
        return local

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.slow
def test_ctrl_c_at_any_line_of_the_engine(line: ToyModel, search: str, request: pytest.FixtureRequest) -> None:
    """And up to twice more soon after, while the best sample is being kept."""
    job = Job(Task(line, "wide", ToyReward()), SEARCHES[search], NFE, 0, STEPS4)
    with interrupted_at([]) as count:
        [whole] = Engine(8).run([job])
    total, draw = count[0], random.Random(search)
    for _ in range(round((request.config.getoption("--kills") or 60) / len(SEARCHES))):
        first = draw.randrange(total)
        lines = [first, *(first + draw.randrange(1, 60) for _ in range(draw.randrange(3)))]
        witness = Witness()
        with interrupted_at(lines) as count:
            try:
                result, error = outcome(job, [witness])
            except KeyboardInterrupt:
                result, error = None, None
                assert not witness.completed_early, f"{search}, {lines}: a finished sample was lost"
                assert witness.best == -math.inf, f"{search}, {lines}: a sample was lost"
        check(result, witness, f"{search}, {lines}")
        if error is None and result is not None:
            assert torch.equal(result.x0, whole.x0), "an unnoticed Ctrl-C changed the result"
