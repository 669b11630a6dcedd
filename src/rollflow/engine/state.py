"""States of populations, each with its own account, independent of other jobs and of interruptions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from rollflow.engine.final_choice import Shortlist
from rollflow.engine.meter import Spending
from rollflow.requests import Reward
from rollflow.search.propagator import Finished, Progress


class Point(NamedTuple):
    """The best reward so far at a number of NFE."""

    nfe: int
    reward: float


class Origin(NamedTuple):
    """Where a job's sample came from.

    Args:
        population: Index of the population that found it.
        row: Row of the sample among the particles that this population saved last (``Progress.particles``), or of the
            particle it descends from. For an interrupted search, whose best sample need not have been kept, the row of
            the highest reward. None if the population saved none.
    """

    population: int
    row: int | None


class Candidate(NamedTuple):
    """A sample that a job may return.

    Args:
        population: Index of the population that found it.
        sample: The sample.
        chosen: Its score by the reward of the final choice; None if that did not score it.
    """

    population: int
    sample: Finished
    chosen: float | None = None


@dataclass(frozen=True)
class PopulationState:
    """State of one population.

    Args:
        state: State that it saved last, or its result; None before its first save.
        spent: Amounts that it has spent.
        rises: Best reward so far against the population's NFE, one point per rise.
        best: Clean sample of the last rise; None if nothing was scored.
        seen: (n, k) earlier scores that a relative reward uses (``RewardModel.combine``); None for any other reward.
        ineligible: Number of samples that could not be chosen, by where the first value that is not finite arose or by
            who rejected them; under ``GRADIENT`` the number of times that guidance had no finite gradient to follow.
        fault: Origin of the first of these, and a message about it; None if there was none.
        shortlist: Best candidates for the final choice; None without one.
        outside: Score furthest outside the range that its reward declares, by the reward's name.
    """

    state: Progress | Finished | None = None
    spent: Spending = Spending()
    rises: tuple[Point, ...] = ()
    best: Finished | None = None
    seen: Tensor | None = None
    ineligible: dict[str, int] = field(default_factory=dict)
    fault: tuple[str, str] | None = None
    outside: dict[str, float] = field(default_factory=dict)
    shortlist: Shortlist | None = None

    def scored(self, request: Reward, rewards: Float[Tensor, " B"], first_row: int | None = None) -> PopulationState:
        """Return the state after samples were scored, with a new best sample if one of them is better.

        Args:
            request: The samples.
            rewards: (B,) rewards of the samples.
            first_row: Row of the first sample among the particles saved last; None if they are not among them.
        """
        at = int(rewards.argmax())
        reward = float(rewards[at])
        if reward == -math.inf or (self.best is not None and reward <= self.best.reward):
            return self
        rises = (*self.rises, Point(self.spent.nfe, reward))
        row = None if first_row is None else first_row + at
        best = Finished(request.x0[at].clone(), reward, request.noise_level, row=row)
        return replace(self, rises=rises, best=best)

    def kept(self, state: Progress | Finished) -> PopulationState:
        """Return the state after the population was saved or has returned."""
        if isinstance(state, Finished):
            state = state._replace(row=self.row_of(state))
        return replace(self, state=state)

    def row_of(self, sample: Finished) -> int | None:
        """Return the row of a sample for its ``Origin``."""
        if sample.row is not None or self.state is None:
            return sample.row
        return self.state.row if isinstance(self.state, Finished) else self.state.particles.best_row

    def faulty(self, where: str, what: str, count: int = 1) -> PopulationState:
        """Return the state after ``count`` samples were not eligible; 0 records a fault before any sample shows it."""
        counts = {**self.ineligible, where: self.ineligible.get(where, 0) + count}
        return replace(self, ineligible=counts, fault=self.fault or (where, what))


@dataclass(frozen=True)
class Checkpoint:
    """State from which a job can be resumed: that of every population when it was last saved.

    Anything that a population did after that is not part of it. A resumed job does it again, draw for draw, and ends
    with the same bits and the same account as one that was never stopped.

    Args:
        populations: States of all populations.
        seconds: Computing time so far (``Result.seconds``).
    """

    populations: tuple[PopulationState, ...]
    seconds: float = 0.0


def in_lockstep(nfe: int, shares: Sequence[int]) -> int:
    """Return the NFE of a job when each population has spent ``nfe``, or its whole share if that is less."""
    return sum(min(nfe, share) for share in shares)


def bests_of(populations: Sequence[PopulationState]) -> list[Candidate]:
    """List the best sample of each population, the highest reward first; of equals, the one with the fewest NFE."""
    bests = [Candidate(i, one.best) for i, one in enumerate(populations) if one.best is not None]
    return sorted(bests, key=lambda best: (-best.sample.reward, populations[best.population].rises[-1].nfe))


def best_of(populations: Sequence[PopulationState]) -> Finished | None:
    """Return the best sample of all populations; None if nothing was scored."""
    return next((best.sample for best in bests_of(populations)), None)


def ineligible_of(populations: Sequence[PopulationState]) -> dict[str, int]:
    """Count the ineligible samples of all populations, by the origin of the fault."""
    counts = dict[str, int]()
    for one in populations:
        for where, count in one.ineligible.items():
            if count:
                counts[where] = counts.get(where, 0) + count
    return counts


def trace_of(populations: Sequence[PopulationState]) -> list[Point]:
    """Return the best reward of all populations in lockstep against the NFE of the job, one point per rise."""
    shares, trace = [one.spent.nfe for one in populations], list[Point]()
    for nfe, _, reward in sorted((p.nfe, i, p.reward) for i, one in enumerate(populations) for p in one.rises):
        if not trace or reward > trace[-1].reward:
            trace.append(Point(in_lockstep(nfe, shares), reward))
    return trace
