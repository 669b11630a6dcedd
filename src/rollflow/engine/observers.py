"""Observers of a run; the engine itself prints and writes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from rollflow.engine.job import Job
from rollflow.engine.meter import Spending
from rollflow.engine.result import Result
from rollflow.engine.state import Checkpoint
from rollflow.errors import RollflowWarning, described
from rollflow.requests import Reward
from rollflow.runtime.callees import settings_kept
from rollflow.search.propagator import Progress


class Observer:
    """Base class of observers, whose methods the engine calls in its own thread; each does nothing unless overridden.

    An observer gets copies, which it may modify. If it raises an exception, the run continues with a warning, and the
    observer is not called again. Ctrl-C (``KeyboardInterrupt``) does stop the run.
    """

    def admitted(self, job: Job) -> None:
        """Called when a job begins."""

    def scored(
        self, job: Job, population: int, request: Reward, rewards: Float64[Tensor, " B"], spent: Spending
    ) -> None:
        """Called when clean samples of a population were scored.

        Args:
            job: The job.
            population: Index of the population.
            request: The samples.
            rewards: (B,) rewards of the samples, -inf for a sample that is not eligible.
            spent: Amounts that the population has spent so far.
        """

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        """Called when a population has completed a step."""

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        """Called after a step or the end of a population, with a checkpoint of the job (``Job.resume``)."""

    def completed(self, job: Job, result: Result) -> None:
        """Called when a job has ended with a result, interrupted or not."""

    def failed(self, job: Job, error: Exception) -> None:
        """Called when a job has failed without a result."""


class Audience:
    """The observers of one run.

    Args:
        observers: Observers, called in this order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def tell(self, event: str, *values: Any) -> None:
        """Call the method ``event`` of every observer that overrides it, with copies of the values."""
        for observer in list(self._observers):
            try:
                method = getattr(observer, event)
                if getattr(method, "__func__", None) is getattr(Observer, event):
                    continue  # does nothing, which needs no copies
                with settings_kept():
                    method(*map(copied, values))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._observers.remove(observer)
                warnings.warn(
                    f"observer {type(observer).__name__} failed in '{event}' and is not called again; the run "
                    f"continues: {described(error)}",
                    RollflowWarning,
                    stacklevel=2,
                )


def copied(value: Any) -> Any:
    """Copy all tensors and containers of a value; jobs, which are frozen, are shared."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(copied, value))
    if isinstance(value, tuple | list):
        return type(value)(map(copied, value))
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type | Job):
        return replace(value, **{part.name: copied(getattr(value, part.name)) for part in fields(value) if part.init})
    return value
