"""One run of the engine: who is live, what they wait for, and who is answered next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.job import Job, Point, Result
from rollflow.engine.meter import Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.errors import BadReward, BudgetExceeded
from rollflow.requests import Asking, Decode, Request, Reward, Save, Velocity
from rollflow.rewards.base import RewardModel
from rollflow.search.base import Finished, Progress


@dataclass(eq=False)
class _Run:
    """A job in flight."""

    place: int
    job: Job
    meter: Meter
    condition: Any
    finished: list[Finished | None]
    best: Finished | None = None
    trace: list[Point] = field(default_factory=list)
    progress: dict[int, Progress] = field(default_factory=dict)

    def note(self, request: Reward, rewards: Tensor) -> None:
        """Keep the best clean sample seen, so that a job that is stopped has something to show."""
        at = int(rewards.argmax())
        if self.best is None or float(rewards[at]) > self.best.reward:
            self.best = Finished(request.x0[at], float(rewards[at]), request.noise_level)
            self.trace.append(Point(self.meter.spent.nfe, self.best.reward))


@dataclass(eq=False)
class _Live:
    """A population and the request that it waits for."""

    run: _Run
    population: int
    asking: Asking[Finished]
    request: Any = None


class Session:
    """The state of one ``Engine.run``.

    Args:
        waiting: Jobs with their places.
        max_rows: The most rows in one call.
        observers: Told of everything.

    Attributes:
        results: By place; None until there is one.
        failures: By place.
    """

    def __init__(self, waiting: deque[tuple[int, Job]], max_rows: int, observers: Sequence[Observer]) -> None:
        self.waiting = waiting
        self.max_rows = max_rows
        self.observers = observers
        self.results: list[Result | None] = [None] * len(waiting)
        self.failures: dict[int, Exception] = {}
        self.runs: list[_Run] = []
        self.live: list[_Live] = []

    def run(self) -> None:
        """Run until no job is left."""
        while self.waiting or self.live:
            while self.waiting and self._waiting_rows() < self.max_rows:
                self._admit(*self.waiting.popleft())
                self._settle()
            self._serve(Velocity)
            self._settle()

    def rescue(self) -> None:
        """Make results of the best that unfinished jobs have seen."""
        for run in list(self.runs):
            self._stop(run, None)

    def _waiting_rows(self) -> int:
        return sum(len(live.request.x) for live in self.live if isinstance(live.request, Velocity))

    def _admit(self, place: int, job: Job) -> None:
        meter = Meter(replace(job.caps, nfe=job.nfe))
        try:
            meter.debit(Spending(decodes=1))  # of the sample that is returned, so that a stopped job can show its best
            condition = job.task.model.encode(job.task.prompt)
            populations = job.populations()
        except Exception as error:
            self.failures[place] = error
            for observer in self.observers:
                observer.failed(job, error)
            return
        run = _Run(place, job, meter, condition, finished=[None] * len(populations))
        self.runs.append(run)
        for observer in self.observers:
            observer.admitted(job)
        for i, asking in enumerate(populations):
            if run in self.runs:
                self._advance(_Live(run, i, asking), None)

    def _settle(self) -> None:
        """Answer everything but velocities until all that live wait for those."""
        while any(not isinstance(live.request, Velocity) for live in self.live):
            for kind in (Save, Reward, Decode):
                self._serve(kind)

    def _serve(self, kind: type[Request]) -> None:
        """Answer the pending requests of one kind, those that can share a call together."""
        groups: dict[tuple[int, int | None], list[_Live]] = {}
        for live in [live for live in self.live if isinstance(live.request, kind)]:
            if live.run in self.runs and self._debit(live):
                task = live.run.job.task
                judge = id(task.reward) if kind is Reward else None
                groups.setdefault((id(task.model), judge), []).append(live)
        calls = deque(groups.values())
        while calls:
            group = [live for live in calls.popleft() if live.run in self.runs]
            try:
                answers = self._answers(kind, group) if group else []
            except Exception as error:
                if len(group) == 1:
                    self._fail(group[0].run, error)
                else:
                    calls.extend([live] for live in group)  # alone, so that only who is at fault fails
                continue
            for live, answer in zip(group, answers, strict=True):
                if live.run in self.runs and self._note(live, answer):
                    self.live.remove(live)
                    self._advance(live, answer)

    def _advance(self, live: _Live, answer: object) -> None:
        """Send an answer; the population asks again, returns, or fails its job."""
        run = live.run
        try:
            live.request = live.asking.send(answer)
        except StopIteration as stop:
            run.finished[live.population] = stop.value
            if all(run.finished):
                self._complete(run)
        except Exception as error:
            self._fail(run, error)
        else:
            self.live.append(live)

    def _drop(self, run: _Run) -> None:
        self.live = [live for live in self.live if live.run is not run]
        self.runs.remove(run)

    def _fail(self, run: _Run, error: Exception) -> None:
        self.failures[run.place] = error
        self._drop(run)
        for observer in self.observers:
            observer.failed(run.job, error)

    def _stop(self, run: _Run, why: Exception | None) -> None:
        """End a job early with the best that it has; without any, it fails for the reason given, if there is one."""
        try:
            best = run.best or self._best_of_progress(run)
            result = None if best is None else self._result(run, best, interrupted=True)
        except Exception as error:
            self._fail(run, error)
            return
        if result is not None:
            self._finish(run, result)
        elif why is not None:
            self._fail(run, why)

    def _best_of_progress(self, run: _Run) -> Finished | None:
        """The best of the latest clean estimates, scored now, of a search that does not score on the way."""
        for population, progress in run.progress.items():
            request = Reward(progress.particles.clean, run.job.dynamics.noise_level(progress.step))
            live = _Live(run, population, iter(()), request)  # type: ignore[arg-type]
            run.meter.debit(_price(live))
            run.note(request, self._rewards([live])[0])
        return run.best

    def _debit(self, live: _Live) -> bool:
        """Account for a request before it is evaluated; False if that ended its job."""
        try:
            live.run.meter.debit(_price(live))
        except BudgetExceeded as error:
            self._stop(live.run, error)
            return False
        return True

    def _note(self, live: _Live, answer: Any) -> bool:
        """Remember an answer and tell the observers; False if it failed its job."""
        run, request = live.run, live.request
        if isinstance(request, Save):
            run.progress[live.population] = request.state
            for observer in self.observers:
                observer.saved(run.job, live.population, request.state)
        if isinstance(request, Reward):
            for row, reward in enumerate(answer.tolist()):
                if not math.isfinite(reward):
                    self._fail(run, _not_finite(run.job, reward, f"row {row} of {len(answer)}"))
                    return False
            run.note(request, answer)
            for observer in self.observers:
                observer.scored(run.job, live.population, request, answer, run.meter.spent)
        return True

    def _answers(self, kind: type[Request], group: list[_Live]) -> list[Any]:
        if kind is Velocity:
            return self._velocities(group)
        if kind is Reward:
            return self._rewards(group)
        if kind is Decode:
            model = group[0].run.job.task.model
            return self._shared([live.request.x0 for live in group], lambda rows, x0: model.decode(x0))
        return [None] * len(group)

    def _shared(self, tensors: list[Tensor], call: Callable[[slice, Tensor], Tensor]) -> list[Tensor]:
        """Rows of a group through ``call``, which gets where they are and themselves, at most ``max_rows`` at once."""
        rows = torch.cat(tensors)
        calls = -(-len(rows) // self.max_rows)
        bounds = [len(rows) * i // calls for i in range(calls + 1)]
        answers = [call(slice(a, b), rows[a:b]) for a, b in pairwise(bounds)]
        return list(torch.split(torch.cat(answers), [len(tensor) for tensor in tensors]))

    def _velocities(self, group: list[_Live]) -> list[Tensor]:
        model = group[0].run.job.task.model
        t = torch.cat([live.request.t for live in group])
        conditions = [live.run.condition for live in group for _ in live.request.x]
        tensors = [live.request.x for live in group]
        return self._shared(tensors, lambda rows, x: model.velocity(x, t[rows], conditions[rows]))

    def _rewards(self, group: list[_Live]) -> list[Tensor]:
        task = group[0].run.job.task
        prompts = [live.run.job.task.prompt for live in group for _ in live.request.x0]
        tensors = [live.request.x0 for live in group]
        return self._shared(tensors, lambda rows, x0: scored(task.reward, task.model.decode(x0), prompts[rows]))

    def _complete(self, run: _Run) -> None:
        best = max((finished for finished in run.finished if finished is not None), key=lambda f: f.reward)
        try:
            result = self._result(run, best, interrupted=False)
        except Exception as error:
            self._fail(run, error)
        else:
            self._finish(run, result)

    def _finish(self, run: _Run, result: Result) -> None:
        self.results[run.place] = result
        self._drop(run)
        for observer in self.observers:
            observer.completed(run.job, result)

    def _result(self, run: _Run, best: Finished, *, interrupted: bool) -> Result:
        task = run.job.task
        sample = task.model.decode(best.x0[None])
        held_out = {judge.name: float(scored(judge, sample, [task.prompt])) for judge in task.held_out}
        trace = (*run.trace, Point(run.meter.spent.nfe, run.best.reward if run.best else best.reward))
        return Result(
            run.job, sample[0], best.x0, best.reward, held_out, run.meter.spent, best.noise_level, interrupted, trace
        )


def _price(live: _Live) -> Spending:
    """What answering a request costs."""
    match live.request:
        case Velocity(x):
            return Spending(nfe=len(x), network_rows=len(x) * live.run.job.task.model.rows_per_nfe)
        case Reward(x0):
            return Spending(reward_calls=len(x0), decodes=len(x0))
        case Decode(x0):
            return Spending(decodes=len(x0))
    return Spending()


def _not_finite(job: Job, reward: float, where: str) -> BadReward:
    return BadReward(
        f"reward '{job.task.reward.name}' gave {reward} for {where} of the prompt '{job.task.prompt}'; rewards must be "
        "finite"
    )


def scored(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    """Rewards (B,) in float64 on the CPU, in batches of the reward's own size.

    Raises:
        BadReward: If the reward does not give one number a sample.
    """
    answers = []
    for start in range(0, len(samples), reward.batch_size):
        part = samples[start : start + reward.batch_size]
        answer = torch.as_tensor(reward.score(part, prompts[start : start + reward.batch_size]))
        if answer.shape != (len(part),):
            raise BadReward(
                f"reward '{reward.name}' gave shape {tuple(answer.shape)} for {len(part)} samples; "
                f"expected ({len(part)},)"
            )
        answers.append(answer.detach().double().cpu())
    return torch.cat(answers)
