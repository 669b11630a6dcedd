"""A job in flight, and its populations, each with the request that it waits for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rollflow.engine.answers import Asked, price
from rollflow.engine.job import Job
from rollflow.engine.meter import Meter
from rollflow.engine.standing import Checkpoint, Standing
from rollflow.requests import Asking, Grad, Request, Save, Slope, Velocity, some_rows
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
    """A population and the request that it waits for.

    Args:
        run: Its job.
        population: Which of the job's.
        asking: Its generator.
        request: What it waits for.
        answers: To the rows that have been answered, ...
        answered: ... which are the first so many.
    """

    run: Run
    population: int
    asking: Asking[Finished]
    request: Any = None
    answers: list[Any] = field(default_factory=list)
    answered: int = 0

    def ask(self, request: Request) -> None:
        """Wait for the answer to a request."""
        self.request, self.answers, self.answered = request, [], 0

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        return self.run.now[self.population]

    @standing.setter
    def standing(self, standing: Standing) -> None:
        self.run.now[self.population] = standing

    @property
    def rows(self) -> int:
        """Samples of its request that wait for an answer; 0 of one to save."""
        if isinstance(self.request, Save):
            return 0
        return len(self.request.x if isinstance(self.request, NETWORK) else self.request.x0) - self.answered

    def asked(self, rows: int) -> Asked:
        """The request for the first so many of the samples that wait."""
        whole = rows == self.rows and not self.answered
        request = self.request if whole else some_rows(self.request, self.answered, self.answered + rows)
        return Asked(request, self.run.job.task, self.run.condition)

    def take(self, rows: int, answer: Any) -> bool:
        """Keep the answer to so many samples; whether none waits any more."""
        self.answers.append(answer)
        self.answered += rows
        return not self.rows

    @property
    def answer(self) -> Any:
        """To the whole request."""
        first, *others = self.answers
        if not others:
            return first
        if isinstance(first, Slope):
            return Slope(*map(torch.cat, zip(*self.answers, strict=True)))
        return torch.cat(self.answers)

    def debit(self) -> None:
        """Account for the request before any of it is answered; raises ``BudgetExceeded`` if a cap forbids it."""
        if self.answered:
            return
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
