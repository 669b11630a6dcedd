"""One run of the engine: who is live, what they wait for, and who is answered next."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from rollflow.checks import instance
from rollflow.engine.background import PendingReward, Timed, Worker, awaited
from rollflow.engine.executor import Executor, Query, examined
from rollflow.engine.job import Job, Task
from rollflow.engine.meter import Meter, Spending
from rollflow.engine.observers import Audience, Observer
from rollflow.engine.population import NETWORK, Population, RunningJob, combined, out_of_range
from rollflow.engine.probe import Preparation
from rollflow.engine.result import Result
from rollflow.engine.scheduler import Slice, batch_groups, fill_batches, overlap_half
from rollflow.engine.state import (
    Candidate,
    Checkpoint,
    Origin,
    Point,
    PopulationState,
    bests_of,
    ineligible_of,
    trace_of,
)
from rollflow.errors import BadModel, BudgetExceeded, RollflowError, blamed
from rollflow.requests import Decode, Grad, Request, Reward, Save
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import HeldOutScores, judged_by, outside
from rollflow.runtime import interruption
from rollflow.runtime.callees import called
from rollflow.search.propagator import Finished, Progress

T = TypeVar("T")

UNASKED, CUT_SHORT = "interrupted before it was asked", "interrupted before it answered"
"""Why a reward of the sample of an interrupted run is missing."""

_HALF_A_BYTE = 0.5 / 255
"""By which pixels may lie outside [0, 1] without a byte of their file being another."""

_LAST_WORDS = 5.0
"""Seconds in which rewards score what an interrupted run returns, all together, where signals are listened to."""


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


class Session:
    """The state of one ``Engine.run``.

    Rewards that are computed elsewhere are sent off, to one thread for each place that computes them however many
    reward objects name it, and awaited after the next turn of the network; of those who wait
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

    def __init__(self, jobs: Iterable[Job], answers: Executor, observers: Sequence[Observer], overlap: bool) -> None:
        self.overlap = overlap
        self.jobs: Iterator[Job] | None = iter(jobs)
        self.places = itertools.count()
        self.answers = answers
        self.audience = Audience(observers)
        self.prepared = Preparation(answers)
        self.ended: list[Ended] = []
        self.runs: list[RunningJob] = []
        self.live: list[Population] = []
        self.flights: list[PendingReward] = []
        self.workers: dict[Hashable, Worker] = {}
        self.stopped = self.hurried = False
        self._until = 0.0

    def run(self) -> Iterator[Ended]:
        """Run until no job is left; jobs as they end."""
        while self.jobs or self.live or self.flights:
            interruption.check()
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
            if not (self._network(due) or out):
                self._flush(due)
            for flight in out:
                self._deliver(Reward, flight.fill_batches, flight)
            self._settle()
            yield from self._since()

    def _since(self) -> Iterator[Ended]:
        while self.ended:
            yield self.ended[0]
            del self.ended[0]  # only now, since an interruption may have kept it from whoever listens

    def close(self) -> None:
        """Let go of the threads."""
        for worker in self.workers.values():
            worker.close()

    def rescue(self) -> list[Ended]:
        """After Ctrl-C: jobs that have ended, and of those that have not the best that they have seen.

        Nobody is waited for: what is computed in another process, or still at work, is not asked any more. Interrupted
        itself, it is called again, and leaves out what samples can do without.
        """
        interruption.wind_up()
        self.hurried, self.stopped = self.stopped or self.hurried, True
        self._until = time.monotonic() + _LAST_WORDS
        over = {one.place for one in self.ended}
        for run in [run for run in self.runs if run.place not in over]:
            self._stop(run, None)
        return list(self.ended)

    def _waiting_rows(self) -> int:
        return sum(live.rows for live in self.live if isinstance(live.request, NETWORK))

    def _due(self, out: list[PendingReward]) -> list[Population]:
        """Whose turn it is with the network: that of all, but of those whose rewards are sent off only of half."""
        flying = [turn.live for flight in out for turn in flight.fill_batches]
        here = [live for live in self.live if not self._sent_off(live)]
        return here + overlap_half(flying, [live for live in self.live if self._sent_off(live)])

    def _sent_off(self, live: Population) -> bool:
        return self.overlap and live.run.job.task.overlaps

    def _admit(self, place: int, job: Job) -> None:
        meter = Meter(replace(job.caps, nfe=job.nfe))
        try:
            meter.debit(Spending(decodes=1))  # of the sample that is returned, so that a stopped job can show its best
            condition = encoded(job.task)
            self.prepared.prepare(job, condition)
            populations = job.populations()
            at = deepcopy(job.resume) or Checkpoint((PopulationState(),) * len(populations))  # which observers see, too
            meter.debit(sum((one.spent for one in at.populations), Spending()))
        except Exception as error:
            self.ended.append(Ended(place, job, None, error))
            self.audience.tell("failed", job, error)
            return
        run = RunningJob(place, job, meter, condition, list(at.populations), list(at.populations), at.seconds)
        self.runs.append(run)
        self.audience.tell("admitted", job)
        for i, asking in enumerate(populations):
            if run in self.runs and not isinstance(asking, Finished):
                self._advance(Population(run, i, asking), None)
        if run in self.runs and run.done:
            self._complete(run)

    def _settle(self) -> None:
        """Answer everything that needs no network until all that live wait for one, or for rewards from elsewhere.

        Where calls are padded, rewards may also wait until they fill one.
        """
        while self._serve_all((Save, Reward, Decode), self.live):
            pass

    def _network(self, due: Sequence[Population], *, whole: bool = False) -> bool:
        """Answer what needs the network, and then what needs none; whether anything was answered."""
        moved = False
        for kind in NETWORK:
            moved |= self._serve(kind, due, whole=whole)
            self._settle()
        return moved

    def _flush(self, due: Sequence[Population]) -> None:
        """Answer what fills no call: rewards, after which velocities may fill one; else what needs the network."""
        if not self._serve_all((Reward, Decode), self.live, whole=True):
            self._network(due, whole=True)

    def _serve_all(self, kinds: Sequence[type[Request]], due: Sequence[Population], *, whole: bool = False) -> bool:
        return any([self._serve(kind, due, whole=whole) for kind in kinds])

    def _serve(self, kind: type[Request], due: Sequence[Population], *, whole: bool = False) -> bool:
        """Answer requests of one kind, those that can share a call together, or send them off.

        Args:
            kind: Which.
            due: Who may have their turn.
            whole: Whether all have it, also where calls are padded; else only as many as leave no room in a call.

        Returns:
            Whether anyone had.
        """
        waiting = [live for live in due if isinstance(live.request, kind) and live.run in self.runs]
        if not waiting:
            return False
        served = False
        for group in batch_groups(kind, waiting):
            sent_off = kind is Reward and self._sent_off(group[0])
            if whole or sent_off or kind is Save or not self.answers.padded:
                chosen = [Slice(live, live.asked(live.rows), live.rows) for live in group]
            else:
                chosen = fill_batches(group, self.answers.most(kind))
            served |= bool(chosen)
            paid = [turn for turn in chosen if turn.live.run in self.runs and self._debit(turn.live)]
            if paid:
                asked = [turn.asked for turn in paid]
                how = partial(self._send, paid, asked) if sent_off else partial(self.answers.of, kind, asked)
                self._deliver(kind, paid, Timed(how))
        return served

    def _send(self, sent: list[Slice], asked: list[Query]) -> list[Any]:
        """Have rewards computed elsewhere; nothing is answered yet."""
        place, work = asked[0].task.reward.place, self.answers.rewards_later(asked)
        if place not in self.workers:
            self.workers[place] = Worker()
        self.flights.append(PendingReward(sent, Timed(work), self.workers[place]))
        self.live = [live for live in self.live if live not in [turn.live for turn in sent]]
        return []

    def _by_worker(self, task: Task, call: Callable[[], T]) -> T:
        """What ``call`` gives, in the thread of the place of the task's reward, where there is one."""
        worker = self.workers.get(task.reward.place)
        if worker is None:
            return call()
        answer: T = awaited(worker.submit(call))
        return answer

    def _deliver(self, kind: type[Request], group: Sequence[Slice], answer: Timed) -> None:
        """Give those of a group what ``answer`` has for them; if it fails, they are answered alone."""
        try:
            answers = answer()
        except Exception as error:
            for turn in group:
                live = turn.live
                if live.run not in self.runs:
                    continue
                if len(group) > 1:  # alone, so that only who is at fault fails
                    again = partial(self.answers.of, kind, [turn.asked])
                    self._deliver(kind, [turn], Timed(partial(self._by_worker, live.run.job.task, again)))
                else:
                    self._stop(live.run, error)
            return
        computed = max(1, self.answers.computed(kind, sum(turn.rows for turn in group)))
        for live, _, rows in group:
            live.run.seconds += answer.seconds * rows / computed
        for (live, _, rows), of_rows in zip(group, answers, strict=False):  # none for a group that was sent off
            if live.run not in self.runs or not live.take(rows, of_rows):
                continue
            try:
                told = live.read(live.answer)
            except Exception as error:
                self._stop(live.run, error)
                continue
            self._note(live, told)
            if live in self.live:
                self.live.remove(live)
            self._advance(live, told)

    def _advance(self, live: Population, answer: object) -> None:
        """Send an answer; the population asks again, returns, or fails its job."""
        run, ended = live.run, False
        try:
            with blamed(f"method '{run.job.search.name}' failed"):
                try:
                    live.ask(_request(live.asking.send(answer)))
                except StopIteration as stop:
                    ended = True
                    state = instance(f"what method '{run.job.search.name}' returns", stop.value, Finished)
        except RollflowError as error:
            self._stop(run, error)
            return
        if not ended:
            self.live.append(live)
            return
        self._keep(live, state)
        if run.done:
            self._complete(run)

    def _keep(self, live: Population, state: Progress | Finished) -> None:
        """Remember where a population stands."""
        run = live.run
        live.keep(state)
        if isinstance(state, Progress):
            self.audience.tell("saved", run.job, live.population, state)
        self.audience.tell("checkpointed", run.job, run.checkpoint)

    def _drop(self, run: RunningJob) -> None:
        self.live = [live for live in self.live if live.run is not run]
        self.runs.remove(run)

    def _fail(self, run: RunningJob, error: Exception) -> None:
        self.ended.append(Ended(run.place, run.job, None, error))
        self._drop(run)
        self.audience.tell("failed", run.job, error)

    def _stop(self, run: RunningJob, why: Exception | None) -> None:
        """End a job early with the best that it has; without any, it fails for the reason given, if there is one."""
        try:
            found = self._best(run, why)
            result = self._result(run, found, interrupted=True, cause=why) if found else None
        except Exception as error:
            self._fail(run, error if why is None else why)
            return
        if result is not None:
            self._finish(run, result)
        elif why is not None or (why := run.nothing_eligible) is not None:
            self._fail(run, why)

    def _best(self, run: RunningJob, why: Exception | None) -> list[Candidate]:
        """The best that a job has seen, the best first; of one that has all its samples, the best of those.

        Where nothing was scored yet and nothing is broken, the latest clean estimates are scored now.
        """
        reward = run.job.task.reward
        if run.done and not reward.relative:
            finished = [one for one in run.finished if one.sample.reward > -math.inf]
            if finished and why is None:
                return sorted(finished, key=lambda one: -one.sample.reward)
        found, broken = bests_of(run.now), why is not None and not isinstance(why, BudgetExceeded)
        if found or broken or (self.stopped and self._unasked(reward)):
            return found
        with self._last_words():
            return self._best_of_progress(run)

    def _unasked(self, reward: RewardModel) -> bool:
        """Whether a reward would keep who has pressed Ctrl-C waiting."""
        return self.hurried or reward.interactive or _remote(reward)

    def _last_words(self) -> AbstractContextManager[None]:
        return interruption.skippable(max(self._until - time.monotonic(), 0.001)) if self.stopped else nullcontext()

    def _best_of_progress(self, run: RunningJob) -> list[Candidate]:
        """The best of the latest clean estimates, scored now, of a search that does not score on the way."""
        for population, standing in enumerate(run.now):
            if not isinstance(standing.state, Progress):
                continue
            clean, level = standing.state.particles.clean, standing.state.level(run.job.dynamics)
            rows = run.job.task.reward.batch_size if self.stopped and not run.job.task.reward.relative else len(clean)
            for first in range(0, len(clean), rows):  # after Ctrl-C in parts: each counts if the next takes too long
                request = Reward(clean[first : first + rows], level)
                live = Population(run, population, iter(()), request)  # type: ignore[arg-type]
                live.debit()
                [verdict] = self._by_worker(run.job.task, partial(self.answers.of, Reward, [live.asked(live.rows)]))
                rewards = live.read(verdict)
                live.standing = live.standing.scored(request, rewards, first)
        return bests_of(run.now)

    def _debit(self, live: Population) -> bool:
        """Account for a request before it is evaluated; False if that ended its job."""
        try:
            live.debit()
        except BudgetExceeded as error:
            self._stop(live.run, error)
            return False
        return True

    def _note(self, live: Population, answer: Any) -> None:
        """Remember what the population is told, and tell the observers."""
        run, request = live.run, live.request
        if isinstance(request, Save):
            self._keep(live, request.state)
        if isinstance(request, Grad):
            request, answer = Reward(answer.clean, request.noise_level), answer.reward
        if isinstance(request, Reward):
            live.standing = live.standing.scored(request, answer)
            self.audience.tell("scored", run.job, live.population, request, answer, live.standing.spent)

    def _complete(self, run: RunningJob) -> None:
        """End a job whose populations have all returned: with the best of them, or else with the best before it."""
        try:
            found = sorted(self._reconciled(run), key=lambda one: -one.sample.reward)  # stable: the first of equals
            found = [one for one in found if one.sample.reward > -math.inf]
            result = self._result(run, found, interrupted=False, cause=None) if found else None
        except Exception as error:
            self._stop(run, error)
            return
        if result is None:
            self._stop(run, run.nothing_eligible)
        else:
            self._finish(run, result)

    def _reconciled(self, run: RunningJob) -> list[Candidate]:
        """What the populations returned, with rewards that can be compared.

        Those of a relative reward cannot, since each population looked back at its own samples: what they returned is
        scored once more, against all samples of all of them; no part of the budget, as held-out rewards are not.
        """
        task = run.job.task
        finished = [one for one in run.finished if one.sample.reward > -math.inf]
        if not task.reward.relative or len(finished) <= 1:
            return finished
        seen = [one.seen for one in run.now if one.seen is not None]
        x0 = torch.stack([one.sample.x0 for one in finished])
        asked = Query(Reward(x0, 0.0), task, run.condition)
        [verdict] = self._by_worker(task, partial(self.answers.of, Reward, [asked]))
        sound = [i for i, fault in enumerate(verdict.faults) if fault is None]
        scores = verdict.scores[sound]
        rewards = combined(task.reward, scores, torch.cat([*seen, scores]))
        return [
            finished[i]._replace(sample=finished[i].sample._replace(reward=float(reward)))
            for i, reward in zip(sound, rewards, strict=True)
        ]

    def _finish(self, run: RunningJob, result: Result) -> None:
        self.ended.append(Ended(run.place, run.job, result, None))
        self._drop(run)
        self.audience.tell("completed", run.job, result)

    def _decoded(self, run: RunningJob, found: Sequence[Candidate]) -> tuple[Candidate, Tensor]:
        """The first of some samples that is eligible still once it is decoded by itself, and its pixels.

        Raises:
            BadModel: If none is.
        """
        what = "nothing was found"
        for one in found:
            if one is not found[0]:
                run.meter.debit(Spending(decodes=1))
            with torch.no_grad():
                samples, [fault] = examined(run.job.task, one.sample.x0[None].clone())
            if fault is None:
                return one, samples[0].clone()
            run.note(fault)
            what = f"{fault.what} when it was decoded by itself"
        raise BadModel(f"no sample is left to return: {what}")

    def _result(
        self, run: RunningJob, found: Sequence[Candidate], *, interrupted: bool, cause: Exception | None
    ) -> Result:
        task = run.job.task
        (population, best), sample = self._decoded(run, found)
        origin = Origin(population, run.now[population].row_of(best))
        parts = task.reward.parts if len(task.reward.parts) > 1 else ()
        told = self._judged(task, parts, sample[None], by_worker=True)
        held_out = self._judged(task, task.held_out, sample[None], by_worker=False)
        rises = trace_of(run.now)
        end = Point(run.meter.spent.nfe, rises[-1].reward if rises else best.reward)
        return Result(
            run.job,
            sample,
            best.x0.clone(),
            origin,
            best.reward,
            told.scores,
            held_out.scores,
            told.missing | held_out.missing,
            run.meter.spent,
            best.noise_level,
            interrupted,
            cause,
            (*rises, end),
            tuple(one.spent.nfe for one in run.now),
            run.seconds,
            tuple(one.sample.diagnostics or {} for one in run.finished),
            ineligible_of(run.now),
            tuple(self._warnings(run, sample, held_out.scores)),
        )

    def _warnings(self, run: RunningJob, sample: Tensor, held_out: dict[str, float]) -> Iterator[str]:
        """What the user of a result should know of its samples and scores."""
        yield from run.warnings
        if sample.ndim in (3, 4) and sample.shape[-3] == 3:
            low, high = float(sample.min()), float(sample.max())
            if low < -_HALF_A_BYTE or high > 1 + _HALF_A_BYTE:
                yield (
                    f"model '{run.job.task.model.name}' decodes pixels from {low:.3g} to {high:.3g}; expected 0 to 1, "
                    "to which they are clipped when saved, so that the file may have another score"
                )
        for reward in run.job.task.held_out:
            if outside(reward, held_out[reward.name]):
                yield out_of_range(reward, held_out[reward.name])

    def _judged(self, task: Task, rewards: Sequence[RewardModel], sample: Tensor, *, by_worker: bool) -> HeldOutScores:
        """What rewards say of the sample that is returned; after Ctrl-C only those that can be had at once."""

        def call(some: Sequence[RewardModel]) -> HeldOutScores:
            how = partial(judged_by, some, sample, task.prompt)
            return self._by_worker(task, how) if by_worker else how()

        if not self.stopped:
            return call(rewards)
        told = HeldOutScores({}, {})
        busy = by_worker and any(worker.busy for worker in self.workers.values())
        for reward in rewards:
            one = HeldOutScores({reward.name: math.nan}, {reward.name: UNASKED})
            if not (busy or self._unasked(reward)):
                try:
                    with self._last_words():
                        one = call([reward])
                except KeyboardInterrupt:
                    self.hurried, one.missing[reward.name] = True, CUT_SHORT
            told.scores.update(one.scores)
            told.missing.update(one.missing)
        return told


def _request(asked: object) -> Request:
    """What a population yielded, if it is a request, since nothing else would ever be answered."""
    if not isinstance(asked, Request):
        raise RollflowError(f"it yielded {type(asked).__name__}, which is no request; use 'yield from'")
    return asked


def _remote(reward: RewardModel) -> bool:
    """Whether a reward, or a part of it, is computed in another process."""
    return reward.remote or any(_remote(part) for part in reward.parts if part is not reward)


def encoded(task: Task) -> Any:
    """The prompt as the model takes it.

    Raises:
        ValueError: If the model cannot read it.
        BadModel: If the model raises anything else.
    """
    with called(f"model '{task.model.name}' failed on the prompt '{task.prompt}'", BadModel), torch.no_grad():
        try:
            return task.model.encode(task.prompt)
        except ValueError as error:
            unreadable = error
    raise unreadable
