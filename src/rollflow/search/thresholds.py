"""Searches that stop trying when an estimate's reward passes a threshold, and so do not spend all of their budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rollflow.checks import refused
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.base import Search
from rollflow.search.cost import Cost, Schedule, Stage
from rollflow.search.propagator import Particles, Propagator


@dataclass(frozen=True)
class ThresholdSearch(Search):
    """A search along one trajectory that goes on where the reward of its estimate is high enough.

    At the last evaluation time the finished sample is judged in the estimate's place, so that nothing is returned that
    was not judged. What it spends depends on the rewards; the whole budget is declared.

    Args:
        thresholds: Rewards that an estimate must reach, at equal distances from noise level 1 to 0 and interpolated
            between them; one number is the same everywhere.
    """

    thresholds: tuple[float, ...] = (0.9,)
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.thresholds:
            raise refused(f"thresholds of {self.name}", "one number or more", self.thresholds)

    def passes(self, reward: float, level: float) -> bool:
        """Return whether an estimate with this reward, at this linear noise level, is good enough to go on from."""
        places = np.linspace(0, 1, len(self.thresholds))
        return reward >= float(np.interp(1 - level, places, self.thresholds))

    def state_nfe(self, dynamics: Dynamics, step: int, *, moved: bool = True) -> int:
        """Return the NFE of one state at an evaluation time, judged; at the last time its finished sample is judged.

        Args:
            dynamics: How particles move.
            step: Number of the evaluation time.
            moved: Whether the kernel leads to the state, which it does not at the first time.
        """
        estimated = step < dynamics.transitions or dynamics.finish_nfe == 0
        kernel = dynamics.sampler.kernel.extra_nfe if moved and step > 0 else 0
        return kernel + (dynamics.evaluate_nfe if estimated else 1 + dynamics.finish_nfe)

    def nfe_from(self, dynamics: Dynamics, step: int) -> int:
        """Return the NFE that take one particle from evaluation time number ``step`` to its finished sample."""
        return sum(self.state_nfe(dynamics, k) + dynamics.guidance_nfe for k in range(step + 1, dynamics.sampler.steps))

    def price(self, dynamics: Dynamics, surplus: int) -> Cost:
        """Return the most that one trajectory and ``surplus`` further NFE can cost, whatever these are spent on."""
        last, free, guided = dynamics.transitions, dynamics.finish_nfe == 0, dynamics.guidance_nfe > 0
        stages = [Stage(1, score=free or k < last, parents=int(k > 0)) for k in range(last + 1)]
        nfe, reward_calls, decodes, _, backward_passes = Schedule(stages, finished=1).cost(dynamics)
        least = 1 if guided else min(self.state_nfe(dynamics, k, moved=False) for k in range(last + 1))
        more = surplus // least
        return Cost(nfe + surplus, reward_calls + more, decodes + more, False, backward_passes + surplus * guided)

    def judged(self, propagator: Propagator, particles: Particles, step: int) -> Asking[Particles]:
        """Finish particles of the last evaluation time, and return others as they are."""
        if step == propagator.dynamics.transitions:
            return (yield from propagator.denoise(particles))
        return particles

    def level(self, dynamics: Dynamics, step: int) -> float:
        """Return the linear noise level of what is judged at an evaluation time."""
        return 0.0 if step == dynamics.transitions and dynamics.finish_nfe > 0 else dynamics.noise_level(step)
