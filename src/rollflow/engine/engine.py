"""Many searches at once over one model call: continuous batching by row."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from rollflow.checks import each, flag, instance, refused, whole
from rollflow.defaults import DEFAULT_MAX_GRAD_ROWS, DEFAULT_MAX_ROWS
from rollflow.engine.executor import Executor
from rollflow.engine.job import Job
from rollflow.engine.observers import Observer
from rollflow.engine.outcome import Ended, Interrupted, JobsFailed
from rollflow.engine.result import Result
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


_MOST_STOPS = 100
"""Times that stopping a session is begun again when that is interrupted, too."""


class Engine:
    """Runs jobs together, so that the rows of all of them fill each model call.

    In turn, until no job is left: admit waiting jobs while a call has room; answer every request that needs no network;
    when all live populations wait for velocities or gradients, answer those in as few calls as the limits allow. Rows
    of different prompts and times share a call, and a request may be split between calls. Where calls are padded, no
    request is answered before it helps to fill a call, unless nothing else is left to do. Nothing depends on a clock,
    so that results are those of ``drive`` whatever the batch (to the last bit where the model's rows do not depend on
    each other's).

    Rewards are loaded, and tried on one sample and on two (``RewardModel.probed``), before the first job that uses them
    begins, outside the budget; so is the gradient that guidance follows.

    Every request is debited before it is evaluated. A job that fails does not disturb the others: if a call raises,
    those who shared it are answered alone. A job that reaches one of its caps, or that fails after something was
    scored, ends early with its best sample so far, and the error is the ``cause`` of its result.

    A sample that is not finite or that the model rejects is not given to the reward; it gets reward -inf, like one
    whose score is not finite, and is never returned. ``Result.ineligible`` counts them, and a ``RollflowWarning`` tells
    of them once a job.

    Args:
        max_rows: The most rows in one call of a model or decoder.
        max_grad_rows: The same for calls that are differentiated, whose graph is what takes memory.
        overlap: Whether rewards from elsewhere (another process, another device) are computed while the model runs.
            Half of the populations then have their turn with the model at once, so that its calls are smaller; those
            of a job with caps stay together. No result changes.
        padded: Whether calls of fewer rows than ``max_rows`` are filled up, so that all are of one shape: what a row
            gets is then the same, to the last bit, whatever shares its call, also where the kernels that a network is
            computed with depend on the shape. The rows that fill a call are in no account.
        observers: Told of everything.
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

    def run(self, jobs: Iterable[Job]) -> list[Result]:
        """Run all jobs to their end; results in the order of the jobs, interrupted ones of those that failed late.

        Raises:
            JobsFailed: If any failed without a sample to show, after the rest have finished.
            Interrupted: On Ctrl-C, with the best samples so far.
        """
        wanted = each("jobs", _listed("jobs", jobs, "jobs"), _job)
        ended: dict[int, Ended] = {}
        session = Session(wanted, self.executor, self.observers, self.overlap)
        interrupted = False
        try:
            for one in session.run():
                ended[one.place] = one
        except KeyboardInterrupt:
            interrupted = True
            ended |= {one.place: one for one in _stopped(session)}
        finally:
            session.close()
        results = [ended[place].result if place in ended else None for place in range(len(wanted))]
        for result in results:
            _warn(result)
        failures = {place: one.error for place, one in sorted(ended.items()) if one.error is not None}
        if interrupted:
            raise Interrupted(results, failures)
        if failures:
            raise JobsFailed(results, failures)
        return [result for result in results if result is not None]

    def stream(self, jobs: Iterable[Job]) -> Iterator[Ended]:
        """Jobs as they end, each taken from ``jobs`` only when there is room for it; nothing is kept here.

        A job that fails is told as one that ended, not raised. Whoever stops listening stops the run.
        """
        if isinstance(jobs, Job) or not isinstance(jobs, Iterable):
            raise refused("jobs", "an iterable of jobs", jobs)
        session = Session((_job("a job", job) for job in jobs), self.executor, self.observers, self.overlap)
        try:
            for ended in session.run():
                _warn(ended.result)
                yield ended
        finally:
            session.close()


def _warn(result: Result | None) -> None:
    if result is None:
        return
    for text in result.warnings:
        warnings.warn(text, RollflowWarning, stacklevel=3)


def _stopped(session: Session) -> list[Ended]:
    """Stop a session, however often that is interrupted itself."""
    for _ in range(_MOST_STOPS):
        try:
            return session.stop()
        except KeyboardInterrupt:
            continue
    return list(session.ended)
