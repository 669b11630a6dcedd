"""Zero-order search: a noise moves to the best of its neighbours, judged by finished samples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from rollflow.checks import real, whole
from rollflow.dynamics.shapes import States
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.base import ScheduledSearch
from rollflow.search.best_of_n import BestOfN
from rollflow.search.cost import Schedule
from rollflow.search.neighbours import on_sphere
from rollflow.search.propagator import Finished, Particles, Progress, Propagator


@dataclass(frozen=True)
class ZeroOrder(ScheduledSearch):
    """Look for a better first noise among neighbours of the best one, each judged by its finished sample.

        n ~ N(0, I)
        in every round:    y_i = |n| (c n / |n| + sqrt(1 - c^2) w_i),  i = 1..N,    w_i orthogonal to n, |w_i| = 1
                           n = the one of n, y_1 ... y_N whose trajectory ends in the highest reward

    Ma et al. 2025, arXiv 2501.09732, "zero-order search", where neighbours are noises at a given distance; here the
    distance is an angle, so that a neighbour is as long as the noise itself. Deviation: the noise stays if no neighbour
    is better, whereas the paper moves it to the best neighbour. Along a stochastic kernel every trajectory has noises
    of its own after the first, so that a good one says less of its first noise; the paper has an ODE.

    Args:
        neighbours: Number N of neighbours in a round.
        cosine: Cosine c of the angle to a neighbour, in [0, 1); 0 looks in any orthogonal direction.

    Cost: that of best of N with as many trajectories: (T + F) NFE and one reward call each, with T the sampler's steps
    and F the NFE of finishing. The last round has fewer neighbours if the budget says so.
    """

    neighbours: int = 4
    cosine: float = 0.95
    name = "zero-order"
    default_kernel = "ode"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("neighbours of zero-order", self.neighbours, at_least=1)
        real("cosine of zero-order", self.cosine, at_least=0, below=1)

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        return BestOfN().schedule(dynamics, surplus)

    def _rounds(self, trajectories: int) -> list[range]:
        """Return the numbers of the trajectories of each round; the first round has the first noise, too."""
        starts = [0, *range(1 + self.neighbours, trajectories, self.neighbours)]
        return [range(start, end) for start, end in pairwise([*starts, trajectories])]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics, rounds = propagator.dynamics, self._rounds(self.bought(propagator).finished)
        numbers, best = propagator.begin(resume, len(rounds))
        pivot = None if resume is None else resume.extra
        for number in numbers:
            rows = rounds[number]
            noises = propagator.noise.normals(0, rows, [0] * len(rows))
            if pivot is None:
                pivot = noises[:1]
                noises[1:] = on_sphere(pivot, noises[1:], self.cosine)
            else:
                noises = on_sphere(pivot, noises, self.cosine)
            ends = yield from self._trajectories(propagator, noises, rows)
            if number == 0 or ends.best().reward > best.reward:
                pivot, best = noises[ends.best_row : ends.best_row + 1], ends.best()
            level = 0.0 if dynamics.finished else dynamics.last_noise_level
            yield from propagator.save(number, best, pivot, noise_level=level)
        return propagator.returned(best)

    def _trajectories(self, propagator: Propagator, noises: States, rows: range) -> Asking[Particles]:
        """Take noises to the end, as best of N does, and return the finished particles."""
        stages = self.schedule(propagator.dynamics, len(rows) - 1).stages
        for step, (n, score, guided, *_) in enumerate(stages):
            if step == 0:
                particles = yield from propagator.start_from(noises, score=score, guided=guided)
            else:
                particles = yield from propagator.advance(particles, step, rows, [0] * n, score=score, guided=guided)
        return (yield from propagator.denoise(particles))
