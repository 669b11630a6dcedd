"""Best of N: the baseline that every search must beat."""

from __future__ import annotations

from dataclasses import dataclass

from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics
from rollflow.search.base import Cost, Progress, Search
from rollflow.search.propagator import Finished, Propagator


@dataclass(frozen=True)
class BestOfN(Search):
    """N independent trajectories; the finished sample of the highest reward. N is what the budget buys.

        x^i ~ sampler,  i = 1..N;    return argmax_i r(x0^i)

    The baseline of arXiv 2503.19385, at an equal budget.

    Cost: N (T + F) NFE, T the sampler's steps and F the finishing; N reward calls; with guidance N (T - 1) backward
    passes and as many reward calls more. What is left of the budget is less than one trajectory and is not spent.
    """

    name = "bon"

    def _trajectory_nfe(self, dynamics: Dynamics) -> int:
        return dynamics.transitions * dynamics.propagate_nfe + self._last_nfe(dynamics) + dynamics.finish_nfe

    def _last_nfe(self, dynamics: Dynamics) -> int:
        """Of the last evaluation, which is scored where finishing is free and the finished samples are not."""
        return 1 if dynamics.finish_nfe else dynamics.evaluate_nfe

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return self._trajectory_nfe(dynamics)

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        one = self._trajectory_nfe(dynamics)
        if nfe < one:
            raise BudgetTooSmall(self.name, nfe, one)
        n = nfe // one
        leans = n * dynamics.transitions * dynamics.guidance_nfe
        return Cost(n * one, n + leans, n + leans, backward_passes=leans)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [self.cost(dynamics, nfe).nfe]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics, last = propagator.dynamics, propagator.dynamics.transitions
        rows = range(propagator.nfe // self._trajectory_nfe(dynamics))
        zeros = [0] * len(rows)
        free = dynamics.finish_nfe == 0  # otherwise only the finished samples are scored
        if resume is None:
            particles = yield from propagator.start(rows, zeros, score=free and last == 0, guided=True)
            spent = len(rows) * (self._last_nfe(dynamics) if last == 0 else 1)
            done, left = 0, propagator.nfe - spent
            yield from save(Progress(0, particles, left, spent))
        else:
            done, particles, left = resume.step, resume.particles, resume.nfe_left
        for step in range(done + 1, last + 1):
            particles = yield from propagator.advance(
                particles, step, rows, zeros, score=free and step == last, guided=True
            )
            spent = len(rows) * (dynamics.child_nfe if free and step == last else dynamics.propagate_nfe)
            left -= spent
            yield from save(Progress(step, particles, left, spent))
        return (yield from propagator.finish(particles))
