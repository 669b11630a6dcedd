"""The first phase: decide which waiting requests are answered next, and which of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollflow.engine.execution.executor import Executor, Query
from rollflow.engine.population import Population
from rollflow.requests import Grad, Request, Reward, Save


class Slice(NamedTuple):
    """The part of a population's request that is answered now.

    Args:
        population: The population.
        query: The request for these rows alone.
        rows: Number of rows.
    """

    population: Population
    query: Query
    rows: int


class Batch(NamedTuple):
    """Slices that are answered together.

    Args:
        kind: Class of their requests.
        slices: One for each population.
        dispatched: Whether they are rewards to compute in the background.
    """

    kind: type[Request]
    slices: list[Slice]
    dispatched: bool = False


@dataclass(frozen=True)
class Scheduler:
    """Decides what runs next, independently of any clock.

    Args:
        executor: Executor of the batches, which limits the size of calls.
        overlap: Whether remote rewards are computed while the model runs.
    """

    executor: Executor
    overlap: bool

    def dispatches(self, population: Population) -> bool:
        """Whether the rewards of a population are computed in the background."""
        return self.overlap and population.job.job.task.overlaps

    def due(self, waiting: Sequence[Population], pending: Sequence[Population]) -> list[Population]:
        """Return the populations whose requests may go to the network now.

        Populations whose rewards are computed in the background are admitted by halves, so that both sides always have
        work.

        Args:
            waiting: Populations that wait with a request.
            pending: Populations whose rewards are being computed in the background.
        """
        local = [population for population in waiting if not self.dispatches(population)]
        return local + overlap_half(pending, [population for population in waiting if self.dispatches(population)])

    def batches(self, kind: type[Request], waiting: Sequence[Population], *, whole: bool = False) -> list[Batch]:
        """Return batches of the requests of one kind.

        Args:
            kind: Class of the requests.
            waiting: Populations that wait with such a request.
            whole: Whether to include every request; otherwise, only those that fill padded calls completely.
        """
        batches = list[Batch]()
        for group in batch_groups(kind, waiting):
            dispatched = kind is Reward and self.dispatches(group[0])
            if whole or dispatched or kind is Save or not self.executor.padded:
                slices = [Slice(population, population.query(population.rows), population.rows) for population in group]
            else:
                slices = fill_batches(group, self.executor.most_rows(kind))
            if slices:
                batches.append(Batch(kind, slices, dispatched))
        return batches


def batch_groups(kind: type[Request], waiting: Sequence[Population]) -> list[list[Population]]:
    """Group populations that can share a call: those of one model and, if the call needs it, of one reward."""
    groups: dict[tuple[int, int | None], list[Population]] = {}
    for population in waiting:
        job = population.job
        reward = job.reward_id if kind in (Reward, Grad) else None
        groups.setdefault((job.model_id, reward), []).append(population)
    return list(groups.values())


def fill_batches(group: Sequence[Population], most: int) -> list[Slice]:
    """Choose requests that completely fill calls of ``most`` rows.

    First come, first served; the last request is split where the call is full. The populations of a job with caps are
    served together and without splitting (see ``cohorts``), even if this does not fill a call.
    """
    capped = [population for population in group if population.job.job.capped]
    others = [population for population in group if not population.job.job.capped]
    waiting, urgent = (sum(population.rows for population in some) for some in (group, capped))
    room = max(waiting // most * most, min(waiting, -(-urgent // most) * most))
    slices = []
    for population in (*capped, *others):
        rows = min(population.rows, room)
        if rows:
            slices.append(Slice(population, population.query(rows), rows))
        room -= rows
    return slices


def overlap_half(pending: Sequence[Population], waiting: Sequence[Population]) -> list[Population]:
    """Choose waiting populations with about half of all rows, counting those of the pending ones.

    Args:
        pending: Populations that wait for rewards.
        waiting: Populations that wait for the network.
    """
    left = sum(population.rows for population in (*pending, *waiting)) / 2
    chosen: list[Population] = []
    for cohort in cohorts(pending, waiting):
        if left > 0:
            chosen += cohort
            left -= sum(population.rows for population in cohort)
    return chosen


def cohorts(pending: Sequence[Population], waiting: Sequence[Population]) -> list[list[Population]]:
    """Group the populations that wait for the network into those that must be served together.

    Each population forms a group by itself, except for those of a job with caps. None of these may get ahead of the
    others: they share the caps, so the point at which a cap ends the job would depend on what else runs.

    Args:
        pending: Populations that wait for rewards.
        waiting: Populations that wait for the network.
    """
    behind = {population.job.id for population in pending if population.job.job.capped}
    together: dict[tuple[bool, int], list[Population]] = {}
    for population in waiting:
        job = population.job
        if job.id not in behind:
            key = (True, job.id) if job.job.capped else (False, population.id)
            together.setdefault(key, []).append(population)
    return list(together.values())
