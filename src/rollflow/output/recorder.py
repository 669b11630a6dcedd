"""The observer that records what the plots and the summary of a run show."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from rollflow.engine import Job, Observer, Result, Spending
from rollflow.requests import Reward
from rollflow.search import Progress


class Scored(NamedTuple):
    """A reward, and the NFE that its population had spent by then."""

    nfe: int
    population: int
    noise_level: float
    reward: float


class Frame(NamedTuple):
    """The clean estimate at one step of a path.

    Args:
        x0: (...) clean estimate in the model's space.
        noise_level: Linear noise level of the state that the estimate was made from; 0 for a finished sample.
        reward: Reward of the estimate; NaN if the search did not request it.
    """

    x0: Tensor
    noise_level: float
    reward: float


class Recorder(Observer):
    """Records the last admitted job: every score, and the progress of every population.

    Attributes:
        steps: Saved progress after each step, by population.
        points: Every score, in order.
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
        """NFE that each population spent on each step, without finishing."""
        return [[progress.nfe_spent for progress in steps] for _, steps in sorted(self.steps.items())]

    def path(self, result: Result) -> list[Frame]:
        """Return the path to the result: the clean estimate at each step, and the result itself.

        Row i of a population is the same stream at every step, unless the population records ancestors.
        """
        end = Frame(result.x0, result.noise_level, result.objective)
        population, row = result.origin
        if row is None or not self.points:  # stopped before anything was scored since it was resumed
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
        """Whether the last saved clean estimate is the result itself."""
        if not result.interrupted and result.origin.population not in self._denoised:  # otherwise finishing changed it
            return True
        unscored = math.isnan(last.reward)
        return last.noise_level == result.noise_level and (unscored or last.reward == result.objective)
