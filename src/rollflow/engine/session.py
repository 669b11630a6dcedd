"""One run of the engine: who is live, what they wait for, and who is answered next."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from rollflow.engine.answers import Answers, Asked, judged_by, price
from rollflow.engine.checkpoint import Checkpoint
from rollflow.engine.job import Job, Point, Result, Task
from rollflow.engine.meter import Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.engine.worker import Worker
from rollflow.errors import BadReward, BudgetExceeded, RewardUnavailable
from rollflow.requests import Asking, Decode, Grad, Request, Reward, Save, Velocity
from rollflow.search.base import Finished, Progress

T = TypeVar("T")
_NETWORK = (Velocity, Grad)


class _Rise(NamedTuple):
    """A better sample than any before: of which population, what that had spent, and where it is in the trace."""

    population: int
    nfe: int
    point: Point
    best: Finished


@dataclass(eq=False)
class _Run:
    """A job in flight."""

    place: int
    job: Job
    meter: Meter
    condition: Any
    states: list[Progress | Finished | None]
    spent: list[Spending]
    seen: list[Tensor | None]
    best: Finished | None
    trace: list[Point]
    seconds: float
    rises: list[_Rise] = field(default_factory=list)

    @property
    def finished(self) -> list[Finished]:
        """What the populations that are done returned."""
        return [state for state in self.states if isinstance(state, Finished)]

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the job can go on from."""
        unsaved = [rise for rise in self.rises if rise.nfe > self.spent[rise.population].nfe]
        lost = {id(rise.point) for rise in unsaved}
        kept = [rise for rise in self.rises if id(rise.point) not in lost]
        trace = tuple(point for point in self.trace if id(point) not in lost)
        best = kept[-1].best if kept else self.job.resume.best if self.job.resume else None
        return Checkpoint(tuple(self.states), tuple(self.spent), best, trace, tuple(self.seen), self.seconds)

    def note(self, request: Reward, rewards: Tensor, population: int, nfe: int) -> None:
        """Keep the best clean sample seen, so that a job that is stopped has something to show.

        Args:
            request: About the samples.
            rewards: (B,) of them.
            population: That asked.
            nfe: That this population has spent.
        """
        at = int(rewards.argmax())
        if self.best is None or float(rewards[at]) > self.best.reward:
            self.best = Finished(request.x0[at], float(rewards[at]), request.noise_level)
            self.trace.append(Point(self.meter.spent.nfe, self.best.reward))
            self.rises.append(_Rise(population, nfe, self.trace[-1], self.best))


@dataclass(eq=False)
class _Live:
    """A population and the request that it waits for.

    ``seen`` (n, k) is what its reward, if it is relative, was told so far.
    """

    run: _Run
    population: int
    asking: Asking[Finished]
    spent: Spending
    seen: Tensor | None
    request: Any = None

    @property
    def rows(self) -> int:
        """Samples of its request; 0 of one to save."""
        asked = self.request
        return 0 if isinstance(asked, Save) else len(asked.x if isinstance(asked, _NETWORK) else asked.x0)

    def judged(self, scores: Tensor) -> Tensor:
        """Rewards (B,) of the samples that it asks about, from what the parts of the reward say, (B, k)."""
        reward = self.run.job.task.reward
        seen = scores if self.seen is None else torch.cat([self.seen, scores])
        if reward.relative:
            self.seen = seen
        return reward.combine(scores, seen)

    @property
    def asked(self) -> Asked:
        """The request as it is answered."""
        return Asked(self.request, self.run.job.task, self.run.condition)


class Ended(NamedTuple):
    """A job that has ended: with a result or with an error.

    Args:
        place: Among the jobs, from 0.
        job: The job.
        result: What it returned; None if it failed.
        error: What failed it; None if it did not.
    """

    place: int
    job: Job
    result: Result | None
    error: Exception | None


class _Timed:
    """Answers that are computed when called, and how long that took."""

    def __init__(self, answer: Callable[[], list[Any]]) -> None:
        self.answer, self.seconds = answer, 0.0

    def __call__(self) -> list[Any]:
        begun = time.perf_counter()
        answers = self.answer()
        self.seconds += time.perf_counter() - begun
        return answers


class _Flight(_Timed):
    """Rewards that are computed elsewhere, for those who wait for them; called, it waits."""

    def __init__(self, group: list[_Live], work: _Timed, worker: Worker) -> None:
        self.group, self._work, self._answers = group, work, worker.submit(work)

    def __call__(self) -> list[Any]:
        answers: list[Any] = self._answers.result()
        self.seconds = self._work.seconds
        return answers


class Session:
    """The state of one ``Engine.run``.

    Rewards that are computed elsewhere are sent off, and awaited after the next turn of the network; of those who wait
    for the network and for such rewards, half have their turn, so that there is always something to do on both sides.
    Which half, and how long a reward is out, depends on no clock.

    Args:
        jobs: Taken one by one, as there is room for them.
        answers: How requests are answered.
        observers: Told of everything.
        overlap: Whether rewards are sent off.

    Attributes:
        ended: Jobs that have ended since this was last emptied, in that order.
    """

    def __init__(self, jobs: Iterable[Job], answers: Answers, observers: Sequence[Observer], overlap: bool) -> None:
        self.overlap = overlap
        self.jobs: Iterator[Job] | None = iter(jobs)
        self.places = itertools.count()
        self.answers = answers
        self.observers = observers
        self.ended: list[Ended] = []
        self.runs: list[_Run] = []
        self.live: list[_Live] = []
        self.flights: list[_Flight] = []
        self.workers: dict[int, Worker] = {}

    def run(self) -> Iterator[Ended]:
        """Run until no job is left; jobs as they end."""
        while self.jobs or self.live or self.flights:
            while self.jobs and self._waiting_rows() < self.answers.max_rows:
                job = next(self.jobs, None)
                if job is None:
                    self.jobs = None
                    break
                self._admit(next(self.places), job)
                self._settle()
                yield from self._since()
            out, self.flights = self.flights, []
            due = self._due(out)
            for kind in _NETWORK:
                self._serve(kind, due)
                self._settle()
            for flight in out:
                self._deliver(Reward, flight.group, flight)
            self._settle()
            yield from self._since()

    def _since(self) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        """Let go of the threads."""
        for worker in self.workers.values():
            worker.close()

    def rescue(self) -> list[Ended]:
        """Jobs that have ended, and of those that have not the best that they have seen."""
        for run in list(self.runs):
            self._stop(run, None)
        return self._since()

    def _waiting_rows(self) -> int:
        return sum(live.rows for live in self.live if isinstance(live.request, _NETWORK))

    def _due(self, out: list[_Flight]) -> list[_Live]:
        """Whose turn it is with the network: that of all, but of those whose rewards are sent off only of half.

        Where calls are padded, and there is more to do than fits one, only as many jobs have it as fill their calls;
        the populations of a job together, so that its trace does not depend on its company.
        """
        turn = [live for live in self.live if not self._sent_off(live)]
        sent_off = [live for live in self.live if self._sent_off(live)]
        flying = sum(live.rows for flight in out for live in flight.group)
        left = (flying + sum(live.rows for live in sent_off)) / 2
        for live in sent_off:
            if left > 0:
                turn.append(live)
                left -= live.rows
        room = self.answers.full(sum(live.rows for live in turn))
        if not (self.answers.padded and room):
            return turn
        filling: list[_Live] = []
        for run in dict.fromkeys(live.run for live in turn):
            together = [live for live in turn if live.run is run]
            rows = sum(live.rows for live in together)
            if rows <= room:
                filling += together
                room -= rows
        return filling or turn

    def _sent_off(self, live: _Live) -> bool:
        return self.overlap and live.run.job.task.apart

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
            self.ended.append(Ended(place, job, None, error))
            for observer in self.observers:
                observer.failed(job, error)
            return
        seen = list(at.seen) or [None] * len(populations)
        states, spent, trace = list(at.populations), list(at.spent), list(at.trace)
        run = _Run(place, job, meter, condition, states, spent, seen, at.best, trace, at.seconds)
        self.runs.append(run)
        for observer in self.observers:
            observer.admitted(job)
        for i, asking in enumerate(populations):
            if run in self.runs and not isinstance(asking, Finished):
                self._advance(_Live(run, i, asking, at.spent[i], seen[i]), None)
        if run in self.runs and len(run.finished) == len(run.states):
            self._complete(run)

    def _settle(self) -> None:
        """Answer everything that needs no network until all that live wait for one, or for rewards from elsewhere."""
        while any(not isinstance(live.request, _NETWORK) for live in self.live):
            for kind in (Save, Reward, Decode):
                self._serve(kind, self.live)

    def _serve(self, kind: type[Request], due: Sequence[_Live]) -> None:
        """Answer the requests of one kind, those that can share a call together, or send them off."""
        groups: dict[tuple[int, int | None], list[_Live]] = {}
        for live in [live for live in due if isinstance(live.request, kind)]:
            if live.run in self.runs and self._debit(live):
                task = live.run.job.task
                judge = id(task.reward) if kind in (Reward, Grad) else None
                groups.setdefault((id(task.model), judge), []).append(live)
        for group in groups.values():
            asked = [live.asked for live in group]
            how = partial(self._send, group, asked) if kind is Reward and self._sent_off(group[0]) else None
            self._deliver(kind, group, _Timed(how or partial(self.answers.of, kind, asked)))

    def _send(self, group: list[_Live], asked: list[Asked]) -> list[Any]:
        """Have a group's rewards computed elsewhere; nothing is answered yet."""
        reward, work = id(group[0].run.job.task.reward), self.answers.rewards_later(asked)
        if reward not in self.workers:
            self.workers[reward] = Worker()
        self.flights.append(_Flight(group, _Timed(work), self.workers[reward]))
        self.live = [live for live in self.live if live not in group]
        return []

    def _by_worker(self, task: Task, call: Callable[[], T]) -> T:
        """What ``call`` gives, in the thread of the task's reward where it has one, which no two call at once."""
        worker = self.workers.get(id(task.reward))
        if worker is None:
            return call()
        answer: T = worker.submit(call).result()
        return answer

    def _deliver(self, kind: type[Request], group: Sequence[_Live], answer: _Timed) -> None:
        """Give those of a group what ``answer`` has for them; if it fails, they are answered alone."""
        try:
            answers = answer()
        except Exception as error:
            for live in group:
                if live.run not in self.runs:
                    continue
                if len(group) > 1:  # alone, so that only who is at fault fails
                    again = partial(self.answers.of, kind, [live.asked])
                    self._deliver(kind, [live], _Timed(partial(self._by_worker, live.run.job.task, again)))
                elif isinstance(error, RewardUnavailable):
                    self._stop(live.run, error)
                else:
                    self._fail(live.run, error)
            return
        rows = max(1, self.answers.computed(sum(live.rows for live in group)))
        for live in group:
            live.run.seconds += answer.seconds * live.rows / rows
        for live, of_live in zip(group, answers, strict=False):  # none for a group that was sent off
            if live.run not in self.runs:
                continue
            told = live.judged(of_live) if kind is Reward else of_live
            if self._note(live, told):
                if live in self.live:
                    self.live.remove(live)
                self._advance(live, told)

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
        run.seen[live.population] = live.seen
        for observer in self.observers:
            if isinstance(state, Progress):
                observer.saved(run.job, live.population, state)
            observer.checkpointed(run.job, run.checkpoint)

    def _drop(self, run: _Run) -> None:
        self.live = [live for live in self.live if live.run is not run]
        self.runs.remove(run)

    def _fail(self, run: _Run, error: Exception) -> None:
        self.ended.append(Ended(run.place, run.job, None, error))
        self._drop(run)
        for observer in self.observers:
            observer.failed(run.job, error)

    def _stop(self, run: _Run, why: Exception | None) -> None:
        """End a job early with the best that it has; without any, it fails for the reason given, if there is one."""
        try:
            best = run.best or (None if isinstance(why, RewardUnavailable) else self._best_of_progress(run))
            result = None if best is None else self._result(run, best, interrupted=True, cause=why)
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
            live = _Live(run, population, iter(()), Spending(), run.seen[population], request)  # type: ignore[arg-type]
            run.meter.debit(price(request, run.job.task.model))
            [scores] = self._by_worker(run.job.task, partial(self.answers.of, Reward, [live.asked]))
            rewards = live.judged(scores)
            error = _not_finite(run.job, rewards, None)
            if error is not None:
                raise error
            run.note(request, rewards, population, run.spent[population].nfe)
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
            run.note(request, answer, live.population, live.spent.nfe)
            for observer in self.observers:
                observer.scored(run.job, live.population, request, answer, run.meter.spent)
        return True

    def _complete(self, run: _Run) -> None:
        try:
            best = max(self._reconciled(run), key=lambda finished: finished.reward)
            result = self._result(run, best, interrupted=False, cause=None)
        except Exception as error:
            self._fail(run, error)
        else:
            self._finish(run, result)

    def _reconciled(self, run: _Run) -> list[Finished]:
        """What the populations returned, with rewards that can be compared.

        Those of a relative reward cannot, since each population looked back at its own samples: what they returned is
        scored once more, against all samples of all of them; no part of the budget, as held-out rewards are not.
        """
        task, finished = run.job.task, run.finished
        if not task.reward.relative or len(finished) == 1:
            return finished
        x0, seen = torch.stack([one.x0 for one in finished]), [some for some in run.seen if some is not None]
        asked = Asked(Reward(x0, 0.0), task, run.condition)
        [scores] = self._by_worker(task, partial(self.answers.of, Reward, [asked]))
        rewards = task.reward.combine(scores, torch.cat([*seen, scores]))
        return [one._replace(reward=float(reward)) for one, reward in zip(finished, rewards, strict=True)]

    def _finish(self, run: _Run, result: Result) -> None:
        self.ended.append(Ended(run.place, run.job, result, None))
        self._drop(run)
        for observer in self.observers:
            observer.completed(run.job, result)

    def _result(self, run: _Run, best: Finished, *, interrupted: bool, cause: Exception | None) -> Result:
        task = run.job.task
        with torch.no_grad():
            sample = task.model.decode(best.x0[None])
        parts = task.reward.parts if len(task.reward.parts) > 1 else ()
        told = self._by_worker(task, partial(judged_by, parts, sample, task.prompt))
        held_out = judged_by(task.held_out, sample, task.prompt)
        trace = (*run.trace, Point(run.meter.spent.nfe, run.best.reward if run.best else best.reward))
        return Result(
            run.job,
            sample[0],
            best.x0,
            best.reward,
            told.scores,
            held_out.scores,
            told.missing | held_out.missing,
            run.meter.spent,
            best.noise_level,
            interrupted,
            cause,
            trace,
            run.seconds,
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
