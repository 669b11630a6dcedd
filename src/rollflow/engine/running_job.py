"""A job that has begun and has not ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rollflow.engine.execution.faults import GRADIENT, REWARD, Fault
from rollflow.engine.job import Job
from rollflow.engine.meter import Meter
from rollflow.engine.scores import furthest, range_warning
from rollflow.engine.state import Candidate, Checkpoint, PopulationState, ineligible_of
from rollflow.errors import BadModel, BadReward, RollflowError
from rollflow.search.propagator import Finished


@dataclass(eq=False)
class RunningJob:
    """A job, its account and the state of its populations.

    Args:
        id: Index among the jobs of the session.
        job: The job.
        model_id: Id of its model; jobs of one model can share calls of it.
        reward_id: Id of its reward.
        meter: Account of what it spends.
        condition: Encoded prompt.
        states: Current state of each population.
        saved: Last saved state of each population.
        seconds: Computing time so far.
        settings: Attributes of its search when it began, as ``settings_of`` describes them.
    """

    id: int
    job: Job
    model_id: int
    reward_id: int
    meter: Meter
    condition: Any
    states: list[PopulationState]
    saved: list[PopulationState]
    seconds: float
    settings: dict[str, str]

    @property
    def returned(self) -> list[Candidate]:
        """Samples of the populations that have returned."""
        return [Candidate(i, one.state) for i, one in enumerate(self.states) if isinstance(one.state, Finished)]

    @property
    def done(self) -> bool:
        """Whether all populations have returned."""
        return len(self.returned) == len(self.states)

    @property
    def checkpoint(self) -> Checkpoint:
        """Checkpoint from which the job can be resumed."""
        return Checkpoint(tuple(self.saved), self.seconds)

    def note(self, fault: Fault) -> None:
        """Count an ineligible sample that belongs to no population in particular."""
        self.states[0] = self.states[0].faulty(*fault)

    @property
    def nothing_eligible(self) -> RollflowError | None:
        """The error of a job without an eligible sample, with the origin of the first value that is not finite."""
        for where, what in (one.fault for one in self.states if one.fault is not None):
            if where != GRADIENT:
                return (BadReward if where == REWARD else BadModel)(f"no sample can be chosen: first, {what}")
        if self.done:
            return RollflowError(f"method '{self.job.search.name}' returned no sample that can be chosen")
        return None

    @property
    def warnings(self) -> Iterator[str]:
        """Warnings of samples that could not be chosen and of scores outside the range that their reward declares."""
        counts = ineligible_of(self.states)
        first = {where: what for where, what in (one.fault for one in reversed(self.states) if one.fault is not None)}
        gradients = counts.pop(GRADIENT, 0)
        if counts:
            samples = "1 sample" if sum(counts.values()) == 1 else f"{sum(counts.values())} samples"
            by_origin = ", ".join(f"{where} {count}" for where, count in counts.items())
            what = next((f"; first, {first[where]}" for where in counts if where in first), "")
            yield f"{samples} could not be chosen ({by_origin}){what}"
        if gradients:
            times = "once" if gradients == 1 else f"{gradients} times"
            yield f"guidance had no finite gradient to follow {times}; those particles were not guided"
        reward = self.job.task.objective
        for one in dict.fromkeys((*reward.parts, reward)):
            strayed = [state.outside[one.name] for state in self.states if one.name in state.outside]
            if strayed:
                yield range_warning(one, furthest(one, strayed))
