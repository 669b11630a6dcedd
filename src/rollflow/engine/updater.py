"""The third phase: give populations their answers, and end jobs that are done or cannot continue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from rollflow.engine.final_choice import shortlisted
from rollflow.engine.job import Job
from rollflow.engine.observers import Audience, Observer
from rollflow.engine.outcome import Ended
from rollflow.engine.population import Population
from rollflow.engine.promises import as_finished
from rollflow.engine.result import Result
from rollflow.engine.result_maker import ResultMaker
from rollflow.engine.running_job import RunningJob
from rollflow.engine.scheduler import Slice
from rollflow.engine.selection import Selection
from rollflow.errors import RollflowError, blamed
from rollflow.requests import Grad, Reward, Save, as_request
from rollflow.search.own_state import drew
from rollflow.search.propagator import Finished, Progress


class Outcome(NamedTuple):
    """The outcome of an executed slice.

    Args:
        slice: The slice.
        answer: Answer of the executor, if there is no error.
        error: Exception that the executor raised; None if there was none.
    """

    slice: Slice
    answer: Any = None
    error: Exception | None = None


class Updater:
    """Updates populations, jobs and observers.

    Args:
        selection: Selection of the samples that jobs return.
        results: Maker of their results.
        observers: Observers of the run.

    Attributes:
        running: Running jobs, by id.
        waiting: Populations with a pending request, by id, in the order of the requests.
        ended: Jobs that have ended and were not yet handed over, in the order in which they ended.
    """

    def __init__(self, selection: Selection, results: ResultMaker, observers: Sequence[Observer]) -> None:
        self.selection, self.results, self.audience = selection, results, Audience(observers)
        self.running: dict[int, RunningJob] = {}
        self.waiting: dict[int, Population] = {}
        self.ended: list[Ended] = []

    def is_running(self, population: Population) -> bool:
        """Whether the job of a population still runs."""
        return population.job.id in self.running

    def refuse(self, place: int, job: Job, error: Exception) -> None:
        """Record a job that failed before it began."""
        self.ended.append(Ended(place, job, None, error))
        self.audience.tell("failed", job, error)

    def begin(self, job: RunningJob, populations: Iterable[Population]) -> None:
        """Begin a job, and run its populations to their first requests."""
        self.running[job.id] = job
        self.audience.tell("admitted", job.job)
        for population in populations:
            if self.is_running(population):
                self._advance(population, None)
        if job.id in self.running and job.done:
            self._end(job)

    def update(self, outcomes: Iterable[Outcome]) -> None:
        """Give populations their answers, and continue those whose request is fully answered."""
        for (population, _, rows), answer, error in outcomes:
            if not self.is_running(population):
                continue
            if error is not None:
                self.end_early(population.job, error)
            elif population.take(rows, answer):
                try:
                    read = population.read(population.answer)
                except Exception as mistake:
                    self.end_early(population.job, mistake)
                    continue
                self._note(population, read)
                self.waiting.pop(population.id, None)
                self._advance(population, read)

    def end_early(self, job: RunningJob, cause: Exception | None) -> None:
        """End a job with its best sample so far; without a sample, it fails with the cause, if there is one."""
        try:
            candidates = self.selection.so_far(job, cause)
            result = self.results.make(job, candidates, interrupted=True, cause=cause) if candidates else None
        except Exception as error:
            self._fail(job, error if cause is None else cause)
            return
        if result is not None:
            self._complete(job, result)
        elif cause is not None or (cause := job.nothing_eligible) is not None:
            self._fail(job, cause)

    def _note(self, population: Population, answer: Any) -> None:
        """Record the answer to a population, and notify the observers."""
        request = population.request
        if isinstance(request, Save):
            self._keep(population, request.state)
        if isinstance(request, Grad):
            request, answer = Reward(answer.clean, request.noise_level), answer.reward
        if isinstance(request, Reward):
            population.state = population.state.scored(request, answer)
            choice = population.job.job.task.choice
            if choice is not None:
                candidates = shortlisted(population.state.shortlist, request, answer, choice.shortlist)
                population.state = replace(population.state, shortlist=candidates)
            spent = population.state.spent
            self.audience.tell("scored", population.job.job, population.index, request, answer, spent)

    def _advance(self, population: Population, answer: object) -> None:
        """Send a population its answer, after which it makes another request, returns, or fails its job."""
        job, returned = population.job, False
        method = f"method '{job.job.search.name}'"
        try:
            with blamed(f"{method} failed"):
                drawn = torch.get_rng_state()
                try:
                    population.ask(as_request(method, population.search.send(answer)))
                except StopIteration as stop:
                    returned = True
                    state = as_finished(method, stop.value, job.job.task.model)
                population.check_saved()
                if not torch.equal(torch.get_rng_state(), drawn):
                    raise drew(job.job.search.name)
        except RollflowError as error:
            self.end_early(job, error)
            return
        if not returned:
            self.waiting[population.id] = population
            return
        self._keep(population, state)
        if job.done:
            self._end(job)

    def _keep(self, population: Population, state: Progress | Finished) -> None:
        job = population.job
        population.keep(state)
        if isinstance(state, Progress):
            self.audience.tell("saved", job.job, population.index, state)
        self.audience.tell("checkpointed", job.job, job.checkpoint)

    def _end(self, job: RunningJob) -> None:
        """End a job whose populations have all returned, with the best of their samples, or the best sample before."""
        try:
            candidates = self.selection.of_done(job)
            result = self.results.make(job, candidates, interrupted=False, cause=None) if candidates else None
        except Exception as error:
            self.end_early(job, error)
            return
        if result is None:
            self.end_early(job, job.nothing_eligible)
        else:
            self._complete(job, result)

    def _complete(self, job: RunningJob, result: Result) -> None:
        self.ended.append(Ended(job.id, job.job, result, None))
        self._drop(job)
        self.audience.tell("completed", job.job, result)

    def _fail(self, job: RunningJob, error: Exception) -> None:
        self.ended.append(Ended(job.id, job.job, None, error))
        self._drop(job)
        self.audience.tell("failed", job.job, error)

    def _drop(self, job: RunningJob) -> None:
        self.waiting = {key: one for key, one in self.waiting.items() if one.job.id != job.id}
        del self.running[job.id]
