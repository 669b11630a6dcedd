"""A job in flight, and its populations, each with the request that it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.answers import Asked, price
from rollflow.engine.job import Job
from rollflow.engine.meter import Meter
from rollflow.engine.standing import Checkpoint, Standing
from rollflow.requests import Asking, Grad, Save, Velocity
from rollflow.search.base import Finished, Progress

NETWORK = (Velocity, Grad)
"""Requests that the flow model answers."""


@dataclass(eq=False)
class Run:
    """A job in flight.

    Args:
        place: Among the jobs, from 0.
        job: The job.
        meter: Its account.
        condition: Its prompt, as the model reads it.
        now: Where its populations stand ...
        saved: ... and where each stood when it was last saved.
        seconds: Computing time until now.
    """

    place: int
    job: Job
    meter: Meter
    condition: Any
    now: list[Standing]
    saved: list[Standing]
    seconds: float

    @property
    def finished(self) -> list[Finished]:
        """What the populations that are done returned."""
        return [one.state for one in self.now if isinstance(one.state, Finished)]

    @property
    def done(self) -> bool:
        """Whether all are."""
        return len(self.finished) == len(self.now)

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the job can go on from."""
        return Checkpoint(tuple(self.saved), self.seconds)


@dataclass(eq=False)
class Live:
    """A population and the request that it waits for."""

    run: Run
    population: int
    asking: Asking[Finished]
    request: Any = None

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        return self.run.now[self.population]

    @standing.setter
    def standing(self, standing: Standing) -> None:
        self.run.now[self.population] = standing

    @property
    def rows(self) -> int:
        """Samples of its request; 0 of one to save."""
        asked = self.request
        return 0 if isinstance(asked, Save) else len(asked.x if isinstance(asked, NETWORK) else asked.x0)

    @property
    def asked(self) -> Asked:
        """The request as it is answered."""
        return Asked(self.request, self.run.job.task, self.run.condition)

    def debit(self) -> None:
        """Account for the request; raises ``BudgetExceeded`` if a cap forbids it."""
        cost = price(self.request, self.run.job.task.model)
        self.run.meter.debit(cost)
        self.standing = replace(self.standing, spent=self.standing.spent + cost)

    def judged(self, scores: Tensor) -> Tensor:
        """Rewards (B,) of the samples that it asks about, from what the parts of the reward say, (B, k)."""
        reward, seen = self.run.job.task.reward, self.standing.seen
        seen = scores if seen is None else torch.cat([seen, scores])
        if reward.relative:
            self.standing = replace(self.standing, seen=seen)
        return reward.combine(scores, seen)

    def keep(self, state: Progress | Finished) -> None:
        """Save where it stands."""
        self.standing = replace(self.standing, state=state)
        self.run.saved[self.population] = self.standing


def parties(flying: Sequence[Live], waiting: Sequence[Live]) -> list[list[Live]]:
    """Of those who wait for the network, who have their turns together.

    That is each by itself, but all the populations of a job with caps, none of which may be ahead of the others then:
    what one spends the others cannot, so that where a cap ends the job would depend on its company.

    Args:
        flying: Who wait for rewards.
        waiting: Who wait for the network.
    """
    behind = {id(live.run) for live in flying if live.run.job.capped}
    together: dict[int, list[Live]] = {}
    for live in waiting:
        if id(live.run) not in behind:
            together.setdefault(id(live.run if live.run.job.capped else live), []).append(live)
    return list(together.values())
