"""One run of the engine: who is live, what they wait for, and who is answered next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.answers import Answers, Asked, price, scored
from rollflow.engine.checkpoint import Checkpoint
from rollflow.engine.job import Job, Point, Result
from rollflow.engine.meter import Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.errors import BadReward, BudgetExceeded
from rollflow.requests import Asking, Decode, Grad, Request, Reward, Save, Velocity
from rollflow.search.base import Finished, Progress

_NETWORK = (Velocity, Grad)


@dataclass(eq=False)
class _Run:
    """A job in flight."""

    place: int
    job: Job
    meter: Meter
    condition: Any
    states: list[Progress | Finished | None]
    spent: list[Spending]
    best: Finished | None = None
    trace: list[Point] = field(default_factory=list)

    @property
    def finished(self) -> list[Finished]:
        """What the populations that are done returned."""
        return [state for state in self.states if isinstance(state, Finished)]

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the job can go on from."""
        nfe = sum(spent.nfe for spent in self.spent)
        trace = tuple(point for point in self.trace if point.nfe <= nfe)
        return Checkpoint(tuple(self.states), tuple(self.spent), self.best, trace)

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
    spent: Spending
    request: Any = None

    @property
    def asked(self) -> Asked:
        """The request as it is answered."""
        return Asked(self.request, self.run.job.task, self.run.condition)


class Session:
    """The state of one ``Engine.run``.

    Args:
        waiting: Jobs with their places.
        answers: How requests are answered.
        observers: Told of everything.

    Attributes:
        results: By place; None until there is one.
        failures: By place.
    """

    def __init__(self, waiting: deque[tuple[int, Job]], answers: Answers, observers: Sequence[Observer]) -> None:
        self.waiting = waiting
        self.answers = answers
        self.observers = observers
        self.results: list[Result | None] = [None] * len(waiting)
        self.failures: dict[int, Exception] = {}
        self.runs: list[_Run] = []
        self.live: list[_Live] = []

    def run(self) -> None:
        """Run until no job is left."""
        while self.waiting or self.live:
            while self.waiting and self._waiting_rows() < self.answers.max_rows:
                self._admit(*self.waiting.popleft())
                self._settle()
            for kind in _NETWORK:
                self._serve(kind)
                self._settle()

    def rescue(self) -> None:
        """Make results of the best that unfinished jobs have seen."""
        for run in list(self.runs):
            self._stop(run, None)

    def _waiting_rows(self) -> int:
        return sum(len(live.request.x) for live in self.live if isinstance(live.request, _NETWORK))

    def _admit(self, place: int, job: Job) -> None:
        meter = Meter(replace(job.caps, nfe=job.nfe))
        try:
            meter.debit(Spending(decodes=1))  # of the sample that is returned, so that a stopped job can show its best
            with torch.no_grad():
                condition = job.task.model.encode(job.task.prompt)
            populations = job.populations()
            at = job.resume or Checkpoint((None,) * len(populations), (Spending(),) * len(populations), None, ())
            meter.debit(sum(at.spent, Spending()))
        except Exception as error:
            self.failures[place] = error
            for observer in self.observers:
                observer.failed(job, error)
            return
        run = _Run(place, job, meter, condition, list(at.populations), list(at.spent), at.best, list(at.trace))
        self.runs.append(run)
        for observer in self.observers:
            observer.admitted(job)
        for i, asking in enumerate(populations):
            if run in self.runs and not isinstance(asking, Finished):
                self._advance(_Live(run, i, asking, at.spent[i]), None)
        if run in self.runs and len(run.finished) == len(run.states):
            self._complete(run)

    def _settle(self) -> None:
        """Answer everything that needs no network until all that live wait for one."""
        while any(not isinstance(live.request, _NETWORK) for live in self.live):
            for kind in (Save, Reward, Decode):
                self._serve(kind)

    def _serve(self, kind: type[Request]) -> None:
        """Answer the pending requests of one kind, those that can share a call together."""
        groups: dict[tuple[int, int | None], list[_Live]] = {}
        for live in [live for live in self.live if isinstance(live.request, kind)]:
            if live.run in self.runs and self._debit(live):
                task = live.run.job.task
                judge = id(task.reward) if kind in (Reward, Grad) else None
                groups.setdefault((id(task.model), judge), []).append(live)
        calls = deque(groups.values())
        while calls:
            group = [live for live in calls.popleft() if live.run in self.runs]
            try:
                answers = self.answers.of(kind, [live.asked for live in group]) if group else []
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
            self._keep(live, stop.value)
            if len(run.finished) == len(run.states):
                self._complete(run)
        except Exception as error:
            self._fail(run, error)
        else:
            self.live.append(live)

    def _keep(self, live: _Live, state: Progress | Finished) -> None:
        """Remember where a population stands."""
        run = live.run
        run.states[live.population], run.spent[live.population] = state, live.spent
        for observer in self.observers:
            if isinstance(state, Progress):
                observer.saved(run.job, live.population, state)
            observer.checkpointed(run.job, run.checkpoint)

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
        for population, progress in enumerate(run.states):
            if not isinstance(progress, Progress):
                continue
            request = Reward(progress.particles.clean, progress.level(run.job.dynamics))
            live = _Live(run, population, iter(()), Spending(), request)  # type: ignore[arg-type]
            run.meter.debit(price(request, run.job.task.model))
            [rewards] = self.answers.of(Reward, [live.asked])
            run.note(request, rewards)
        return run.best

    def _debit(self, live: _Live) -> bool:
        """Account for a request before it is evaluated; False if that ended its job."""
        cost = price(live.request, live.run.job.task.model)
        try:
            live.run.meter.debit(cost)
        except BudgetExceeded as error:
            self._stop(live.run, error)
            return False
        live.spent += cost
        return True

    def _note(self, live: _Live, answer: Any) -> bool:
        """Remember an answer and tell the observers; False if it failed its job."""
        run, request = live.run, live.request
        if isinstance(request, Save):
            self._keep(live, request.state)
        gradients = None
        if isinstance(request, Grad):
            request, answer, gradients = Reward(answer.clean, request.noise_level), answer.reward, answer.gradient
        if isinstance(request, Reward):
            error = _not_finite(run.job, answer, gradients)
            if error is not None:
                self._fail(run, error)
                return False
            run.note(request, answer)
            for observer in self.observers:
                observer.scored(run.job, live.population, request, answer, run.meter.spent)
        return True

    def _complete(self, run: _Run) -> None:
        best = max(run.finished, key=lambda finished: finished.reward)
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
        with torch.no_grad():
            sample = task.model.decode(best.x0[None])
        held_out = {judge.name: float(scored(judge, sample, [task.prompt])) for judge in task.held_out}
        trace = (*run.trace, Point(run.meter.spent.nfe, run.best.reward if run.best else best.reward))
        return Result(
            run.job,
            sample[0],
            best.x0,
            best.reward,
            held_out,
            run.meter.spent,
            best.noise_level,
            interrupted,
            trace,
            tuple(finished.diagnostics or {} for finished in run.finished),
        )


def _not_finite(job: Job, rewards: Tensor, gradients: Tensor | None) -> BadReward | None:
    """The error of the first row whose reward, or its gradient where there is one, is not finite."""
    for row, reward in enumerate(rewards.tolist()):
        gave = None if math.isfinite(reward) else str(reward)
        if gave is None and gradients is not None and not gradients[row].isfinite().all():
            gave = "a gradient that is not finite"
        if gave is not None:
            return BadReward(
                f"reward '{job.task.reward.name}' gave {gave} for row {row} of {len(rewards)} of the prompt "
                f"'{job.task.prompt}'; rewards must be finite, and so must their gradients where guidance follows them"
            )
    return None
