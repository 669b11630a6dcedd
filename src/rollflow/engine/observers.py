"""Those who watch a run; the engine itself prints and writes nothing."""

from __future__ import annotations

from torch import Tensor

from rollflow.engine.job import Job, Result
from rollflow.engine.meter import Spending
from rollflow.engine.standing import Checkpoint
from rollflow.requests import Reward
from rollflow.search.base import Progress


class Observer:
    """Called by the engine, in its thread; every method does nothing unless overridden."""

    def admitted(self, job: Job) -> None:
        """The job has begun."""

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        """Clean samples of one population were scored: (B,) rewards; ``spent`` by that population so far."""

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        """A population has made a step."""

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        """The job can now go on from here (``Job.resume``), after a step or the end of a population."""

    def completed(self, job: Job, result: Result) -> None:
        """The job is done, or was stopped with something to show."""

    def failed(self, job: Job, error: Exception) -> None:
        """The job has failed; there is no result."""
