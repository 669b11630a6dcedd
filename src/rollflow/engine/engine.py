"""The engine: runs many jobs at once, so that rows of all of them share model calls."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from rollflow.checks import MOST_NFE, each, flag, instance, refused, whole
from rollflow.defaults import DEFAULT_MAX_GRAD_ROWS, DEFAULT_MAX_ROWS
from rollflow.engine.execution.executor import Executor
from rollflow.engine.job import Job
from rollflow.engine.observers import Observer
from rollflow.engine.outcome import Ended, Interrupted, JobsFailed
from rollflow.engine.pool import Pool
from rollflow.engine.result import Result
from rollflow.engine.rounds import PooledJobs
from rollflow.engine.session import Session
from rollflow.errors import RollflowWarning


def _listed(name: str, values: object, what: str) -> list[Any]:
    if isinstance(values, str | Job | Observer) or not isinstance(values, Iterable):
        raise refused(name, f"a list of {what}", values)
    return list(values)


def _observer(name: str, value: object) -> Observer:
    observer: Observer = instance(name, value, Observer)
    return observer


def _job(name: str, value: object) -> Job:
    job: Job = instance(name, value, Job)
    return job


def _pool(value: object) -> Pool:
    pool: Pool = value if isinstance(value, Pool) else Pool(whole("pool", value, at_least=1, at_most=MOST_NFE))
    return pool


_MOST_STOPS = 100
"""Largest number of attempts to stop a session when stopping is itself interrupted."""


class Engine:
    """Runs jobs together, so that the rows of all of them fill each model call.

    Until no job is left, the engine admits jobs while a call has room, answers every request that needs no network,
    and, when all populations wait for velocities or gradients, answers those in as few calls as the limits allow. Rows
    of different prompts and times share a call, and a request may be split between calls. If calls are padded, no
    request is answered before it helps to fill a call, unless nothing else is left to do. Nothing depends on a clock,
    and results equal those of ``drive`` for any batch (to the last bit if the model's rows do not depend on each
    other).

    Before the first job that uses them, rewards are loaded and tried on one and on two samples
    (``RewardModel.probed``), and so is the gradient that guidance follows. These calls do not count against the budget.

    Every request is debited before it is evaluated. A job that fails does not disturb the others: if a call raises, the
    requests that shared it are answered one by one. A job that reaches a cap, or that fails after something was scored,
    ends early with its best sample so far, and the error is the ``cause`` of its result.

    A sample that is not finite or that the model rejects is not given to the reward. It gets reward -inf, like one
    whose score is not finite, and is never returned. ``Result.ineligible`` counts such samples, and one
    ``RollflowWarning`` for each job reports them.

    Args:
        max_rows: Largest number of rows in one call of a model or decoder.
        max_grad_rows: Largest number of rows in one differentiated call, whose graph takes the most memory.
        overlap: Whether rewards of another process or device are computed while the model runs. The model is then
            called with half of the populations at a time, so that its calls are smaller; those of a job with caps stay
            together. No result changes.
        padded: Whether calls of fewer rows than ``max_rows`` are padded, so that all calls have the same shape. The
            answer for a row then does not depend, to the last bit, on the rest of its call, even if the kernels that
            compute a network depend on the shape. Padding rows are not counted in any account.
        observers: Observers of the runs.
    """

    def __init__(
        self,
        max_rows: int = DEFAULT_MAX_ROWS,
        observers: Iterable[Observer] = (),
        *,
        max_grad_rows: int = DEFAULT_MAX_GRAD_ROWS,
        overlap: bool = True,
        padded: bool = False,
    ) -> None:
        rows = whole("max_rows", max_rows, at_least=1), whole("max_grad_rows", max_grad_rows, at_least=1)
        self.executor = Executor(*rows, flag("padded", padded))
        self.observers = each("observers", _listed("observers", observers, "observers"), _observer)
        self.overlap = flag("overlap", overlap)

    def run(self, jobs: Iterable[Job], *, pool: Pool | int | None = None) -> list[Result]:
        """Run all jobs to their end.

        Args:
            jobs: The jobs.
            pool: Budget that the jobs share, so that those that succeed early leave NFE to the others: a ``Pool``, or
                its total NFE. Every job then runs in rounds, each with the search and sampler of the job; its result
                has the best sample of its ``rounds``. None gives every job its own budget.

        Returns:
            Results in the order of the jobs. The result of a job that failed after something was scored is
            ``interrupted``.

        Raises:
            BadSetting: If the jobs cannot share the pool.
            JobsFailed: If any job failed without a sample, after the others have ended.
            Interrupted: On Ctrl-C, with the best samples so far.
        """
        wanted = each("jobs", _listed("jobs", jobs, "jobs"), _job)
        if pool is None:
            ended, interrupted = self._run(wanted)
            results = [ended[place].result if place in ended else None for place in range(len(wanted))]
            failures = {place: one.error for place, one in sorted(ended.items()) if one.error is not None}
        else:
            pooled, interrupted = PooledJobs(_pool(pool), wanted), False
            while not interrupted and (jobs_of_round := pooled.next_round()):
                ended, interrupted = self._run([*jobs_of_round.values()])
                pooled.take(jobs_of_round, ended)
            results, failures = pooled.results()
        for result in results:
            _warn(result)
        if interrupted:
            raise Interrupted(results, failures)
        if failures:
            raise JobsFailed(results, failures)
        return [result for result in results if result is not None]

    def _run(self, jobs: Sequence[Job]) -> tuple[dict[int, Ended], bool]:
        """Run jobs until they end or the user stops them; returns how each ended, and whether the user did."""
        ended: dict[int, Ended] = {}
        session = Session(jobs, self.executor, self.observers, self.overlap)
        interrupted, gradients = False, torch.is_grad_enabled()
        try:
            for one in session.run():
                ended[one.place] = one
        except KeyboardInterrupt:
            interrupted = True
            ended |= {one.place: one for one in _stopped(session, gradients)}
        finally:
            session.close()
        return ended, interrupted

    def stream(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """Run jobs and yield each as it ends; results are not kept.

        A job is taken from ``jobs`` only when there is room for it. A failed job is yielded like a finished one; it
        does not raise. Closing the iterator stops the run.
        """
        if isinstance(jobs, Job) or not isinstance(jobs, Iterable):
            raise refused("jobs", "an iterable of jobs", jobs)
        session = Session((_job("a job", job) for job in jobs), self.executor, self.observers, self.overlap)
        gradients = torch.is_grad_enabled()
        try:
            for ended in session.run():
                _warn(ended.result)
                yield ended
        except KeyboardInterrupt:
            torch.set_grad_enabled(gradients)  # see _stopped
            raise
        finally:
            session.close()


def _warn(result: Result | None) -> None:
    if result is None:
        return
    for text in result.warnings:
        warnings.warn(text, RollflowWarning, stacklevel=3)


def _stopped(session: Session, gradients: bool) -> list[Ended]:
    """Stop a session, even if stopping is interrupted itself.

    Args:
        session: The session.
        gradients: Whether gradients were enabled before it. Ctrl-C may have come at the end of a ``with`` block that
            switches them, before it could switch them back.
    """
    ended = session.ended
    for _ in range(_MOST_STOPS):
        torch.set_grad_enabled(gradients)
        try:
            ended = session.stop()
            break
        except KeyboardInterrupt:
            continue
    torch.set_grad_enabled(gradients)
    return list(ended)
