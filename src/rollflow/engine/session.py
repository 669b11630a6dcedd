"""One run of the engine: jobs are admitted, and their requests scheduled, executed and answered."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

from rollflow.engine.background import Background, PendingReward, Timed
from rollflow.engine.execution.executor import Executor
from rollflow.engine.execution.model_calls import encode
from rollflow.engine.job import Job
from rollflow.engine.meter import Meter, Spending
from rollflow.engine.observers import Observer
from rollflow.engine.outcome import Ended
from rollflow.engine.population import NETWORK_REQUESTS, Population
from rollflow.engine.preparation import Preparation
from rollflow.engine.rescue import Rescue
from rollflow.engine.result_maker import ResultMaker
from rollflow.engine.running_job import RunningJob
from rollflow.engine.scheduler import Batch, Scheduler
from rollflow.engine.selection import Selection
from rollflow.engine.state import Checkpoint, PopulationState
from rollflow.engine.updater import Outcome, Updater
from rollflow.errors import BudgetExceeded
from rollflow.requests import Decode, Request, Reward, Save
from rollflow.runtime import interruption
from rollflow.search.own_state import settings_of
from rollflow.search.propagator import Finished


class Session:
    """The state of one ``Engine.run``.

    Requests go through three phases: the scheduler decides which are answered next, the executor evaluates them, and
    the updater gives the answers to the populations. Requests that need no network are answered first, until all
    populations wait for the network, so that its calls are as full as possible. Remote rewards are dispatched to
    background threads and awaited after the next call of the network. No decision depends on a clock.

    Args:
        jobs: Jobs, taken one by one as there is room for them.
        executor: Executor of the requests.
        observers: Observers of the run.
        overlap: Whether remote rewards are computed in the background.
    """

    def __init__(self, jobs: Iterable[Job], executor: Executor, observers: Sequence[Observer], overlap: bool) -> None:
        self.jobs: Iterator[Job] | None = iter(jobs)
        self.background, self.rescue = Background(), Rescue()
        self.scheduler, self.executor = Scheduler(executor, overlap), executor
        selection = Selection(executor, self.background, self.rescue)
        self.updater = Updater(selection, ResultMaker(self.background, self.rescue), observers)
        self.preparation = Preparation(executor)
        self.pending: list[PendingReward] = []
        self._job_ids, self._population_ids = itertools.count(), itertools.count()

    @property
    def waiting(self) -> list[Population]:
        """Populations that wait with a request."""
        return [*self.updater.waiting.values()]

    @property
    def ended(self) -> list[Ended]:
        """Jobs that have ended and were not yet handed over by ``run``."""
        return self.updater.ended

    def run(self) -> Iterator[Ended]:
        """Run all jobs, and yield each as it ends."""
        while self.jobs or self.updater.waiting or self.pending:
            interruption.check()
            while self.jobs and self._network_rows() < self.executor.max_rows:
                job = next(self.jobs, None)
                if job is None:
                    self.jobs = None
                    break
                self._admit(next(self._job_ids), job)
                self._settle()
                yield from self._hand_over()
            pending, self.pending = self.pending, []
            busy = [one.population for reward in pending for one in reward.batch.slices]
            due = self.scheduler.due(self.waiting, busy)
            if not (self._answer_network(due) or pending):
                self._answer_unfilled(due)
            for reward in pending:
                self.updater.update(self._execute(reward.batch, reward))
            self._settle()
            yield from self._hand_over()

    def stop(self) -> list[Ended]:
        """End all running jobs after Ctrl-C with their best samples so far, and return those not yet handed over.

        Remote rewards, and rewards that are still being computed, are neither awaited nor called again. If this method
        is interrupted itself, call it again; it then omits the scores that samples can do without.
        """
        self.rescue.begin()
        ended = {one.place for one in self.ended}
        for job in [job for job in self.updater.running.values() if job.id not in ended]:
            self.updater.end_early(job, None)
        return list(self.ended)

    def close(self) -> None:
        """Let background threads end."""
        self.background.close()

    def _hand_over(self) -> Iterator[Ended]:
        while self.ended:
            yield self.ended[0]
            del self.ended[0]  # only now, since an interruption may have kept it from the caller

    def _network_rows(self) -> int:
        return sum(one.rows for one in self.updater.waiting.values() if isinstance(one.request, NETWORK_REQUESTS))

    def _admit(self, place: int, job: Job) -> None:
        meter = Meter(replace(job.caps, nfe=job.nfe))
        try:
            meter.debit(Spending(decodes=1))  # of the sample that is returned, so that a stopped job can show its best
            condition = encode(job.task)
            self.preparation.prepare(job, condition)
            searches = job.populations()
            start = deepcopy(job.resume) or Checkpoint((PopulationState(),) * len(searches))  # observers see it, too
            meter.debit(sum((state.spent for state in start.populations), Spending()))
        except Exception as error:
            self.updater.refuse(place, job, error)
            return
        model, reward = map(self.executor.numbering.id_of, (job.task.model, job.task.objective))
        states = start.populations
        settings = settings_of(job.search)
        running = RunningJob(place, job, model, reward, meter, condition, [*states], [*states], start.seconds, settings)
        populations = [
            Population(next(self._population_ids), running, index, search)
            for index, search in enumerate(searches)
            if not isinstance(search, Finished)
        ]
        self.updater.begin(running, populations)

    def _settle(self) -> None:
        """Answer requests that need no network until only rewards in the background are left.

        If calls are padded, rewards may also wait until they fill one.
        """
        while self._answer_all((Save, Reward, Decode), self.waiting):
            pass

    def _answer_network(self, due: Sequence[Population], *, whole: bool = False) -> bool:
        """Answer requests that need the network, then those that do not; return whether any needed it."""
        answered = False
        for kind in NETWORK_REQUESTS:
            answered |= self._answer(kind, due, whole=whole)
            self._settle()
        return answered

    def _answer_unfilled(self, due: Sequence[Population]) -> None:
        """Answer requests that do not fill a padded call: rewards, which may lead to more velocities, or velocities."""
        if not self._answer_all((Reward, Decode), self.waiting, whole=True):
            self._answer_network(due, whole=True)

    def _answer_all(self, kinds: Sequence[type[Request]], due: Sequence[Population], *, whole: bool = False) -> bool:
        return any([self._answer(kind, due, whole=whole) for kind in kinds])

    def _answer(self, kind: type[Request], due: Sequence[Population], *, whole: bool = False) -> bool:
        """Take requests of one kind through the three phases.

        Args:
            kind: Class of the requests.
            due: Populations that may be answered.
            whole: Whether padded calls may be partly empty.

        Returns:
            Whether any request was scheduled.
        """
        running = self.updater.is_running
        waiting = [population for population in due if isinstance(population.request, kind) and running(population)]
        batches = self.scheduler.batches(kind, waiting, whole=whole)
        for batch in batches:
            paid = [one for one in batch.slices if running(one.population) and self._debit(one.population)]
            if paid:
                batch = batch._replace(slices=paid)
                self.updater.update(self._execute(batch, Timed(self._call(batch))))
        return bool(batches)

    def _debit(self, population: Population) -> bool:
        """Debit a request before it is executed; return False if this ended its job."""
        try:
            population.debit()
        except BudgetExceeded as error:
            self.updater.end_early(population.job, error)
            return False
        return True

    def _call(self, batch: Batch) -> partial[list[Any]]:
        if batch.dispatched:
            return partial(self._dispatch, batch)
        return partial(self.executor.answer, batch.kind, [one.query for one in batch.slices])

    def _execute(self, batch: Batch, call: Timed) -> Iterator[Outcome]:
        """Execute a batch; if it fails, execute each of its slices alone, so that only the faulty ones fail.

        A dispatched batch has no outcomes until it is awaited.

        Args:
            batch: The batch.
            call: Function that evaluates it.
        """
        try:
            answers = call()
        except Exception as error:
            if len(batch.slices) == 1:
                yield Outcome(batch.slices[0], error=error)
                return
            for one in batch.slices:
                if self.updater.is_running(one.population):
                    again = partial(self.executor.answer, batch.kind, [one.query])
                    alone = Timed(partial(self.background.call, one.query.task.objective, again))
                    yield from self._execute(batch._replace(slices=[one]), alone)
            return
        computed = max(1, self.executor.computed_rows(batch.kind, sum(one.rows for one in batch.slices)))
        for one in batch.slices:
            one.population.job.seconds += call.seconds * one.rows / computed
        for one, answer in zip(batch.slices, answers, strict=False):
            yield Outcome(one, answer)

    def _dispatch(self, batch: Batch) -> list[Any]:
        """Dispatch rewards to the background, without any answers yet."""
        score = self.executor.verdicts_later([one.query for one in batch.slices])
        self.pending.append(self.background.dispatch(batch, score))
        for one in batch.slices:
            self.updater.waiting.pop(one.population.id, None)
        return []
