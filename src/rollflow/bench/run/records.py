"""Records in the journals of an experiment: failed jobs, measurements of diversity, and finished jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from rollflow.bench.run.experiment import Trial
from rollflow.engine import JobRecord, Result
from rollflow.errors import RollflowError

T = TypeVar("T", bound="TrialRecord")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Fields that identify the job or measurement of a record.

    Args:
        id: Identifier of the job or of the measurement.
        arm: Name of the arm.
        prompt: Text of the prompt.
        ask: Number of each thing that the prompt asks for; None reads it from the prompt's words.
        category: Category of the prompt; empty if it has none.
        place: Index of the prompt in its suite.
        seed: Seed within the experiment.
    """

    id: str
    arm: str
    prompt: str
    ask: Mapping[str, int] | None = None
    category: str = ""
    place: int = 0
    seed: int

    @classmethod
    def from_json(cls: type[T], content: Mapping[str, Any]) -> T:
        """Read a checked record; keys that are not fields are ignored."""
        return cls(**{one.name: content[one.name] for one in fields(cls) if one.name in content})


@dataclass(frozen=True, kw_only=True)
class FailedJob(TrialRecord):
    """A job that failed.

    Args:
        error: Description of the error.
    """

    error: str


@dataclass(frozen=True, kw_only=True)
class DiversityMeasurement(TrialRecord):
    """Diversity of samples from one noise, for one prompt and the dynamics of one arm.

    Args:
        diversity: Mean pairwise distance of the samples.
    """

    diversity: float


def identified(trial: Trial) -> dict[str, Any]:
    """Return the fields of a record that identify its trial."""
    prompt = trial.item
    return {
        "id": trial.id,
        "arm": trial.arm.name,
        "prompt": prompt.prompt,
        "ask": prompt.ask,
        "category": prompt.category,
        "place": trial.place,
        "seed": trial.seed,
        "noise": trial.noise,
    }


def record_of(trial: Trial, result: Result, account: Mapping[str, Any]) -> JobRecord:
    """Return the record of a finished trial.

    Args:
        trial: Finished trial.
        result: Result of its job.
        account: Further fields, as returned by ``JobObserver.account``.

    Raises:
        RollflowError: If the reward is not finite.
    """
    if not math.isfinite(result.reward):
        raise RollflowError(f"the reward of the sample is {result.reward}, which a journal cannot hold")
    return replace(result.record(), **identified(trial), **account)
