"""A search of your own: run N trajectories, and halfway replace the worse half by copies of the better half."""

from dataclasses import dataclass

import torch

from rollflow import BestOfN, Search, generate, load_model
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics
from rollflow.search import Cost, Progress
from rollflow.search.propagator import Finished, Particles, Propagator


@dataclass(frozen=True)
class Halving(Search):
    """N trajectories; at the evaluation time ``at`` the worse half is replaced by copies of the better half.

    Args:
        at: Share of the transitions after which the particles are compared, in (0, 1).

    Cost: N (T + F) NFE, T the sampler's steps and F the finishing; N is what the budget buys.
    """

    at: float = 0.5
    name = "halving"

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return dynamics.evaluate_nfe + dynamics.transitions * dynamics.child_nfe + dynamics.finish_nfe

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        one = self.smallest_nfe(dynamics)
        if nfe < one:
            raise BudgetTooSmall(self.name, nfe, one)
        calls = nfe // one * (dynamics.transitions + 1 + (dynamics.finish_nfe > 0))
        return Cost(nfe // one * one, calls, calls)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [self.cost(dynamics, nfe).nfe]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics = propagator.dynamics
        rows = range(propagator.nfe // self.smallest_nfe(dynamics))
        zeros = [0] * len(rows)
        if resume is None:
            particles = yield from propagator.start(rows, zeros)
            done, left = 0, propagator.nfe - len(rows) * dynamics.evaluate_nfe
            yield from save(Progress(0, particles, left, propagator.nfe - left))
        else:
            done, particles, left = resume.step, resume.particles, resume.nfe_left
        for step in range(done + 1, dynamics.transitions + 1):
            if step == max(1, round(self.at * dynamics.transitions)):
                particles = halved(particles)
            particles = yield from propagator.advance(particles, step, rows, zeros)
            left -= len(rows) * dynamics.child_nfe
            yield from save(Progress(step, particles, left, len(rows) * dynamics.child_nfe))
        return (yield from propagator.finish(particles))


def halved(particles: Particles) -> Particles:
    """The better half of the particles, twice."""
    order = particles.reward.argsort(descending=True, stable=True)
    return particles.rows(order[torch.arange(len(order)) // 2])


def main() -> None:
    """Print what the search finds, beside best of N at the same budget and seed."""
    model, prompt = load_model("scenes-base"), "three cars on sand background"
    for search in (BestOfN(), Halving()):
        result = generate(prompt, model=model, method=search, nfe=80, seed=3)
        print(f"{search}: reward {result.reward:.3f} for {result.spent.nfe} NFE")


if __name__ == "__main__":
    main()
