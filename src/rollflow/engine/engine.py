"""Many searches at once over one model call: continuous batching by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.job import Job, Point, Result
from rollflow.engine.meter import Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.errors import BadReward, RollflowError
from rollflow.requests import Asking, Decode, Request, Reward, Save, Velocity
from rollflow.rewards.base import RewardModel
from rollflow.search.base import Finished


class JobsFailed(RollflowError):
    """Some jobs failed; the others ran to their end.

    Args:
        results: One an input job, None where it failed.
        failures: The error of each job that failed, by its place.
    """

    def __init__(self, results: Sequence[Result | None], failures: dict[int, Exception]) -> None:
        place, first = next(iter(failures.items()))
        super().__init__(f"{len(failures)} of {len(results)} jobs failed; job {place}: {first}")
        self.results = tuple(results)
        self.failures = failures


class Interrupted(RollflowError):
    """The run was stopped by the user; ``results`` holds the best of every job until then.

    Args:
        results: One an input job, None where nothing was scored yet or the job failed.
        failures: The error of each job that failed, by its place.
    """

    def __init__(self, results: Sequence[Result | None], failures: dict[int, Exception]) -> None:
        super().__init__("interrupted; the best samples so far are kept")
        self.results = tuple(results)
        self.failures = failures


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

    def note(self, request: Reward, rewards: Tensor) -> None:
        """Keep the best clean sample seen, so that an interrupted job has something to show."""
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
    request: Any


class Engine:
    """Runs jobs together, so that the rows of all of them fill each model call.

    In turn, until no job is left: admit waiting jobs while a call has room; answer every request that is not a
    velocity; when all live populations wait for velocities, answer those in as few calls as ``max_rows`` allows. Rows
    of different prompts and times share a call, and a request may be split between calls. Nothing depends on a clock,
    so that results are those of ``drive`` whatever the batch (to the last bit where the model's rows do not depend on
    each other's).

    Every request is debited before it is evaluated. A job that fails does not disturb the others: if a call raises,
    those who shared it are answered alone.

    Args:
        max_rows: The most rows in one call of a model or decoder.
        observers: Told of everything.
    """

    def __init__(self, max_rows: int = 64, observers: Iterable[Observer] = ()) -> None:
        if max_rows < 1:
            raise RollflowError(f"max_rows must be at least 1, not {max_rows}")
        self.max_rows = max_rows
        self.observers = tuple(observers)

    def run(self, jobs: Iterable[Job]) -> list[Result]:
        """Run all jobs to their end; results in the order of the jobs.

        Raises:
            JobsFailed: If any failed, after the rest have finished.
            Interrupted: On Ctrl-C, with the best samples so far.
        """
        waiting = deque(enumerate(jobs))
        results: list[Result | None] = [None] * len(waiting)
        session = _Session(self, waiting, results)
        try:
            session.run()
        except KeyboardInterrupt:
            session.rescue()
            raise Interrupted(results, session.failures) from None
        if session.failures:
            raise JobsFailed(results, session.failures)
        return [result for result in results if result is not None]


class _Session:
    """The state of one ``Engine.run``."""

    def __init__(self, engine: Engine, waiting: deque[tuple[int, Job]], results: list[Result | None]) -> None:
        self.max_rows = engine.max_rows
        self.observers = engine.observers
        self.waiting = waiting
        self.results = results
        self.failures: dict[int, Exception] = {}
        self.runs: list[_Run] = []
        self.live: list[_Live] = []

    def run(self) -> None:
        while self.waiting or self.live:
            while self.waiting and self._waiting_rows() < self.max_rows:
                self._admit(*self.waiting.popleft())
                self._settle()
            self._serve(Velocity)
            self._settle()

    def rescue(self) -> None:
        """Make results of the best that unfinished runs have seen."""
        for run in self.runs:
            if run.best is not None:
                try:
                    self.results[run.place] = self._result(run, run.best, interrupted=True)
                except Exception as error:
                    self.failures[run.place] = error

    def _waiting_rows(self) -> int:
        return sum(len(live.request.x) for live in self.live if isinstance(live.request, Velocity))

    def _admit(self, place: int, job: Job) -> None:
        try:
            condition = job.task.model.encode(job.task.prompt)
        except Exception as error:
            self.failures[place] = error
            return
        populations = job.populations()
        meter = Meter(replace(job.caps, nfe=job.nfe))
        run = _Run(place, job, meter, condition, finished=[None] * len(populations))
        self.runs.append(run)
        for observer in self.observers:
            observer.admitted(job)
        for i, asking in enumerate(populations):
            if place not in self.failures:
                self._advance(_Live(run, i, asking, Save(None)), None)

    def _settle(self) -> None:
        """Answer everything but velocities until all that live wait for those."""
        while any(not isinstance(live.request, Velocity) for live in self.live):
            for kind in (Save, Reward, Decode):
                self._serve(kind)

    def _serve(self, kind: type[Request]) -> None:
        """Answer the pending requests of one kind, those that can share a call together."""
        groups: dict[tuple[int, int | None], list[_Live]] = {}
        for live in [live for live in self.live if isinstance(live.request, kind)]:
            if self._debit(live):
                task = live.run.job.task
                judge = id(task.reward) if kind is Reward else None
                groups.setdefault((id(task.model), judge), []).append(live)
        calls = deque(groups.values())
        while calls:
            group = [live for live in calls.popleft() if live.run.place not in self.failures]
            try:
                answers = self._answers(kind, group) if group else []
            except Exception as error:
                if len(group) == 1:
                    self._fail(group[0].run, error)
                else:
                    calls.extend([live] for live in group)  # alone, so that only who is at fault fails
                continue
            for live, answer in zip(group, answers, strict=True):
                if live.run.place not in self.failures:
                    self.live.remove(live)
                    self._advance(live, answer)

    def _advance(self, live: _Live, answer: object) -> None:
        """Send an answer; the population asks again, returns, or fails its job."""
        run = live.run
        try:
            live.request = live.asking.send(answer)
            self.live.append(live)
        except StopIteration as stop:
            run.finished[live.population] = stop.value
            if all(run.finished):
                self._complete(run)
        except Exception as error:
            self._fail(run, error)

    def _fail(self, run: _Run, error: Exception) -> None:
        self.failures.setdefault(run.place, error)
        self.live = [live for live in self.live if live.run is not run]
        if run in self.runs:
            self.runs.remove(run)

    def _debit(self, live: _Live) -> bool:
        """Account for a request before it is evaluated; False if that failed its job."""
        run = live.run
        if run.place in self.failures:
            return False
        match live.request:
            case Velocity(x):
                amount = Spending(nfe=len(x), network_rows=len(x) * run.job.task.model.rows_per_nfe)
            case Reward(x0):
                amount = Spending(reward_calls=len(x0), decodes=len(x0))
            case Decode(x0):
                amount = Spending(decodes=len(x0))
            case _:
                amount = Spending()
        try:
            run.meter.debit(amount)
        except RollflowError as error:
            self._fail(run, error)
            return False
        return True

    def _answers(self, kind: type[Request], group: list[_Live]) -> list[Any]:
        if kind is Velocity:
            return self._velocities(group)
        if kind is Reward:
            return self._rewards(group)
        model = group[0].run.job.task.model
        if kind is Decode:
            return self._shared(group, [live.request.x0 for live in group], lambda rows, x0: model.decode(x0))
        for live in group:
            for observer in self.observers:
                observer.saved(live.run.job, live.population, live.request.state)
        return [None] * len(group)

    def _shared(
        self, group: list[_Live], tensors: list[Tensor], call: Callable[[range, Tensor], Tensor]
    ) -> list[Tensor]:
        """Rows of a group through ``call``, which gets their numbers and themselves, at most ``max_rows`` at once."""
        rows = torch.cat(tensors)
        calls = -(-len(rows) // self.max_rows)
        bounds = [len(rows) * i // calls for i in range(calls + 1)]
        answers = [call(range(a, b), rows[a:b]) for a, b in pairwise(bounds)]
        return list(torch.split(torch.cat(answers), [len(tensor) for tensor in tensors]))

    def _velocities(self, group: list[_Live]) -> list[Tensor]:
        model = group[0].run.job.task.model
        t = torch.cat([live.request.t for live in group])
        conditions = [live.run.condition for live in group for _ in live.request.x]

        def call(rows: range, x: Tensor) -> Tensor:
            return model.velocity(x, t[rows.start : rows.stop], conditions[rows.start : rows.stop])

        return self._shared(group, [live.request.x for live in group], call)

    def _rewards(self, group: list[_Live]) -> list[Tensor]:
        task = group[0].run.job.task
        prompts = [live.run.job.task.prompt for live in group for _ in live.request.x0]

        def call(rows: range, x0: Tensor) -> Tensor:
            return scored(task.reward, task.model.decode(x0), prompts[rows.start : rows.stop])

        answers = self._shared(group, [live.request.x0 for live in group], call)
        for live, rewards in zip(group, answers, strict=True):
            bad = [row for row, finite in enumerate(rewards.isfinite()) if not finite]
            if bad:
                self._fail(
                    live.run,
                    BadReward(
                        f"reward '{task.reward.name}' gave {float(rewards[bad[0]])} for row {bad[0]} of {len(rewards)} "
                        f"of the prompt '{live.run.job.task.prompt}'; rewards must be finite"
                    ),
                )
                continue
            live.run.note(live.request, rewards)
            for observer in self.observers:
                observer.scored(live.run.job, live.population, live.request, rewards, live.run.meter.spent)
        return answers

    def _complete(self, run: _Run) -> None:
        best = max((finished for finished in run.finished if finished is not None), key=lambda f: f.reward)
        try:
            result = self._result(run, best, interrupted=False)
        except Exception as error:
            self._fail(run, error)
            return
        self.results[run.place] = result
        self.runs.remove(run)
        for observer in self.observers:
            observer.completed(run.job, result)

    def _result(self, run: _Run, best: Finished, *, interrupted: bool) -> Result:
        task = run.job.task
        run.meter.debit(Spending(decodes=1))
        sample = task.model.decode(best.x0[None])
        held_out = {judge.name: float(scored(judge, sample, [task.prompt])) for judge in task.held_out}
        trace = (*run.trace, Point(run.meter.spent.nfe, run.best.reward if run.best else best.reward))
        return Result(
            run.job, sample[0], best.x0, best.reward, held_out, run.meter.spent, best.noise_level, interrupted, trace
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
