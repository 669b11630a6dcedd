"""Best of N: the baseline that every search must beat."""

from __future__ import annotations

from dataclasses import dataclass

from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.propagator import Finished, Progress, Propagator


@dataclass(frozen=True)
class BestOfN(ScheduledSearch):
    """Draw N independent trajectories and return the finished sample with the highest reward.

        x^i ~ sampler,  i = 1..N;    return argmax_i r(x0^i)

    The baseline of Kim et al. 2025, arXiv 2503.19385, at an equal budget: N is as large as the budget allows. On a
    step-distilled model it follows the ODE along the linear interpolant by default, as in the paper.

    Cost: N (T + F) NFE, with T the sampler's steps and F the NFE of finishing; N reward calls; with guidance, another
    N (T - 1) reward calls and N (T - 1) backward passes. Less than the cost of one trajectory is left unspent.
    """

    name = "bon"
    few_step_interpolant = "linear"
    few_step_kernel = "ode"

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        n, last, free = 1 + surplus, dynamics.transitions, dynamics.finish_nfe == 0  # else only finished samples score
        return Schedule([Stage(n, score=free and k == last, guided=k < last) for k in range(last + 1)], finished=n)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages = self.bought(propagator).stages
        steps, particles = propagator.begin(resume)
        for step in steps:
            n, score, guided, *_ = stages[step]
            particles = yield from propagator.advance(particles, step, range(n), [0] * n, score=score, guided=guided)
            yield from propagator.save(step, particles)
        return (yield from propagator.finish(particles))
