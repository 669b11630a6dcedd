"""How jobs and runs end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rollflow.engine.descriptions import portable
from rollflow.engine.job import Job
from rollflow.engine.result import Result
from rollflow.errors import RollflowError, Stopped


class Ended(NamedTuple):
    """A job that has ended, with a result or with an error.

    Args:
        place: Index among the jobs.
        job: The job.
        result: Its result; None if it failed.
        error: Error that it failed with; None if it did not.
    """

    place: int
    job: Job
    result: Result | None
    error: Exception | None


class _PartialResults(BaseException):
    """An error with the results of the jobs that have one; pickled, it leaves models and rewards behind."""

    def __init__(self, results: Sequence[Result | None], failures: dict[int, Exception]) -> None:
        super().__init__(tuple(results), failures)
        self.results = tuple(results)
        self.failures = failures

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.results, _portable(self.failures))


class JobsFailed(_PartialResults, RollflowError):
    """Some jobs failed; the others ran to their end.

    Args:
        results: Result of each job; None if it failed.
        failures: Error of each job that failed, by its index.
    """

    def __str__(self) -> str:
        index, first = next(iter(self.failures.items()))
        return f"{len(self.failures)} of {len(self.results)} jobs failed; job {index}: {first}"


class Interrupted(_PartialResults, Stopped):
    """The run was stopped by the user; ``results`` holds the best sample of every job so far.

    Args:
        results: Result of each job; None if nothing was scored yet, or if the job failed.
        failures: Error of each job that failed, by its index.
    """

    def __str__(self) -> str:
        if all(result is None for result in self.results):
            return "interrupted before there was a sample to keep"
        return "interrupted; the best samples so far are kept"


def completed(results: Sequence[Result]) -> Sequence[Result]:
    """Return the results, or raise the error of the first job that an error ended early."""
    for result in results:
        if result.cause is not None:
            raise result.cause
    return results


def _portable(failures: dict[int, Exception]) -> dict[int, Exception]:
    return {place: portable(error) for place, error in failures.items()}
