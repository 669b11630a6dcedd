"""The observer that remembers what a report shows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rollflow.engine import Job, Observer, Result, Spending
from rollflow.requests import Reward
from rollflow.search import Progress


class Scored(NamedTuple):
    """One reward, and what its population had spent by then."""

    nfe: int
    population: int
    noise_level: float
    reward: float


class Frame(NamedTuple):
    """One step of a path: the clean sample that it promised.

    Args:
        x0: (...) in the model's space.
        noise_level: Linear noise level of the state that promised it; 0 for a finished sample.
        reward: NaN where the search did not ask.
    """

    x0: Tensor
    noise_level: float
    reward: float


class Recorder(Observer):
    """Remembers the last job admitted: what was scored, and every population step by step.

    Attributes:
        steps: What each population kept after each step.
        points: All that was scored, in order.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.steps: dict[int, list[Progress]] = {}
        self.points: list[Scored] = []
        self._finished: dict[int, Tensor] = {}

    def admitted(self, job: Job) -> None:
        self._reset()

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.points += [Scored(spent.nfe, population, request.noise_level, float(reward)) for reward in rewards]
        if request.noise_level == 0:
            self._finished[population] = request.x0

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.steps.setdefault(population, []).append(progress)

    @property
    def quota(self) -> list[list[int]]:
        """NFE that each population spent on each step; finishing comes on top."""
        return [[progress.nfe_spent for progress in steps] for _, steps in sorted(self.steps.items())]

    def path(self, result: Result) -> list[Frame]:
        """What the population that won kept at each step, and the result itself.

        Row i of a population is the same stream at every step, unless the population says who descends from whom.
        """
        end = Frame(result.x0, result.noise_level, result.reward)
        if not self.points:  # nothing was scored before the run was stopped, after it was resumed
            return [end]
        population, row = self._winner(result)
        frames: list[Frame] = []
        for progress in reversed(self.steps.get(population, [])):
            level = progress.level(result.job.dynamics)
            frames.insert(0, Frame(progress.particles.clean[row], level, float(progress.particles.reward[row])))
            row = row if progress.ancestors is None else int(progress.ancestors[row])
        # Where finishing is free the last clean estimate is the result.
        if frames and torch.equal(frames[-1].x0, result.x0):
            frames.pop()
        return [*frames, end]

    def _winner(self, result: Result) -> tuple[int, int]:
        """(population, row) that the result came from."""
        for population, steps in sorted(self.steps.items()):
            ends = self._finished.get(population, steps[-1].particles.clean)
            for row, x0 in enumerate(ends):
                if torch.equal(x0, result.x0):
                    return population, row
        # An interrupted run returns the best that was scored, which no population need have kept.
        best = max(self.points, key=lambda point: point.reward)
        kept = self.steps.get(best.population, [])
        return best.population, int(kept[-1].particles.reward.argmax()) if kept else 0
