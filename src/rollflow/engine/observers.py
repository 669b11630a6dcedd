"""Those who watch a run; the engine itself prints and writes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

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
    """Called by the engine, in its thread; every method does nothing unless overridden.

    What an observer is given is its own: nothing that it writes to is seen by the search or by anyone else. An
    exception that it raises does not stop the run: it is warned of, and the observer is called no more. Ctrl-C
    (``KeyboardInterrupt``) does stop it.
    """

    def admitted(self, job: Job) -> None:
        """The job has begun."""

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        """Clean samples of one population were scored: (B,) rewards, -inf for a sample that is not eligible.

        ``spent`` is that population's so far.
        """

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        """A population has made a step."""

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        """The job can now go on from here (``Job.resume``), after a step or the end of a population."""

    def completed(self, job: Job, result: Result) -> None:
        """The job is done, or was stopped with something to show."""

    def failed(self, job: Job, error: Exception) -> None:
        """The job has failed; there is no result."""


class Audience:
    """The observers of one run.

    Args:
        observers: Called in their order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def tell(self, event: str, *given: Any) -> None:
        """Call the method ``event`` of every observer that has one of its own, each with copies."""
        for observer in list(self._observers):
            try:
                method = getattr(observer, event)
                if getattr(method, "__func__", None) is getattr(Observer, event):
                    continue  # does nothing, which needs no copies
                with settings_kept():
                    method(*map(copied, given))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._observers.remove(observer)
                warnings.warn(
                    f"observer {type(observer).__name__} failed in '{event}' and is called no more; the run goes on: "
                    f"{described(error)}",
                    RollflowWarning,
                    stacklevel=2,
                )


def copied(value: Any) -> Any:
    """A copy of all tensors and containers of a value; jobs, which are frozen, are shared."""
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
