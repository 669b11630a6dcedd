"""The observer that remembers what a report shows."""

from __future__ import annotations

import math
from typing import NamedTuple

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
        self._denoised: set[int] = set()

    def admitted(self, job: Job) -> None:
        self._reset()

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.points += [Scored(spent.nfe, population, request.noise_level, float(reward)) for reward in rewards]
        if request.noise_level == 0:
            self._denoised.add(population)

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
        population, row = result.origin
        if row is None or not self.points:  # nothing was scored before the run was stopped, after it was resumed
            return [end]
        frames: list[Frame] = []
        for progress in reversed(self.steps.get(population, [])):
            level = progress.level(result.job.dynamics)
            frames.insert(0, Frame(progress.particles.clean[row], level, float(progress.particles.reward[row])))
            row = row if progress.ancestors is None else int(progress.ancestors[row])
        if frames and self._is_result(frames[-1], result):
            frames.pop()
        return [*frames, end]

    def _is_result(self, last: Frame, result: Result) -> bool:
        """Whether the last clean estimate that was kept is the result itself."""
        if not result.interrupted:
            return result.origin.population not in self._denoised  # else finishing made another sample of it
        unscored = math.isnan(last.reward)
        return last.noise_level == result.noise_level and (unscored or last.reward == result.reward)
