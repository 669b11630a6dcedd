"""States of populations, each by its own account, so that neither other jobs nor an interruption show in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from rollflow.engine.meter import Spending
from rollflow.requests import Reward
from rollflow.search.propagator import Finished, Progress


class Point(NamedTuple):
    """The best reward after so many NFE."""

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
    """

    population: int
    sample: Finished


@dataclass(frozen=True)
class PopulationState:
    """State of one population.

    Args:
        state: What it saved last or returned; None before its first save.
        spent: Amounts that it has spent.
        rises: Its best reward so far against its own NFE, one point a rise.
        best: Clean sample of the last rise; None if nothing was scored.
        seen: (n, k) scores that a relative reward looks back at (``RewardModel.combine``); None for any other reward.
        ineligible: Number of samples that could not be chosen, by where the first value that is not finite arose or by
            who rejected them; under ``GRADIENT`` the number of times that guidance had no finite gradient to follow.
        fault: Where the first of these arose, and a sentence about it; None if there was none.
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

    def scored(self, request: Reward, rewards: Float[Tensor, " B"], first_row: int | None = None) -> PopulationState:
        """The state after samples were scored, the best of which may be the best so far.

        Args:
            request: The samples.
            rewards: (B,) their rewards.
            first_row: Row of the first of them among the particles saved last; None if they are others.
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
        """The state after the population was saved or returned."""
        if isinstance(state, Finished):
            state = state._replace(row=self.row_of(state))
        return replace(self, state=state)

    def row_of(self, sample: Finished) -> int | None:
        """Row of a sample as ``Origin`` has it."""
        if sample.row is not None or self.state is None:
            return sample.row
        return self.state.row if isinstance(self.state, Finished) else self.state.particles.best_row

    def faulty(self, where: str, what: str, count: int = 1) -> PopulationState:
        """The state after ``count`` samples were not eligible; 0 notes a fault before any sample shows it."""
        counts = {**self.ineligible, where: self.ineligible.get(where, 0) + count}
        return replace(self, ineligible=counts, fault=self.fault or (where, what))


@dataclass(frozen=True)
class Checkpoint:
    """State from which a job can be resumed: that of every population when it was last saved.

    What a population did after that is not in it. A job that is resumed does it again, draw for draw, and ends with the
    same bits and the same account as one that was never stopped.

    Args:
        populations: States of all populations.
        seconds: Computing time so far (``Result.seconds``).
    """

    populations: tuple[PopulationState, ...]
    seconds: float = 0.0


def in_lockstep(nfe: int, shares: Sequence[int]) -> int:
    """NFE of a job when each of its populations has spent ``nfe``, or all of its share if that is less."""
    return sum(min(nfe, share) for share in shares)


def bests_of(populations: Sequence[PopulationState]) -> list[Candidate]:
    """Best sample of each population, the highest reward first; of equals the one found with the fewest NFE."""
    bests = [Candidate(i, one.best) for i, one in enumerate(populations) if one.best is not None]
    return sorted(bests, key=lambda best: (-best.sample.reward, populations[best.population].rises[-1].nfe))


def best_of(populations: Sequence[PopulationState]) -> Finished | None:
    """Best sample of all populations; None if nothing was scored."""
    return next((best.sample for best in bests_of(populations)), None)


def ineligible_of(populations: Sequence[PopulationState]) -> dict[str, int]:
    """Number of samples of all populations that were not eligible, by where that arose."""
    counts = dict[str, int]()
    for one in populations:
        for where, count in one.ineligible.items():
            if count:
                counts[where] = counts.get(where, 0) + count
    return counts


def trace_of(populations: Sequence[PopulationState]) -> list[Point]:
    """Best reward of all populations, taken in lockstep, against the NFE of the job; one point a rise."""
    shares, trace = [one.spent.nfe for one in populations], list[Point]()
    for nfe, _, reward in sorted((p.nfe, i, p.reward) for i, one in enumerate(populations) for p in one.rises):
        if not trace or reward > trace[-1].reward:
            trace.append(Point(in_lockstep(nfe, shares), reward))
    return trace
