"""Your own search: run N trajectories, and halfway replace the worse half by copies of the better half."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rollflow import BestOfN, Search, generate, load_model
from rollflow.requests import Asking
from rollflow.search import Finished, Progress, Propagator


@dataclass(frozen=True)
class Halving(Search):
    """Run N trajectories, and at one evaluation time replace the worse half by copies of the better half.

    An example, unpublished.

    Args:
        at: Share of the transitions after which the particles are compared, in (0, 1).

    Cost: N (T + F) NFE, with T the sampler's steps and F the NFE of finishing; N is as large as the budget allows.
    """

    at: float = 0.5
    name = "halving"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        n = 1 + self.surplus(propagator)
        halfway = max(1, round(self.at * propagator.dynamics.transitions))
        steps, particles = propagator.begin(resume)
        for step in steps:
            ancestors = halved(particles.reward) if step == halfway else torch.arange(n)
            parents = particles.rows(ancestors) if step > 0 else particles
            particles = yield from propagator.advance(parents, step, range(n), [0] * n, guided=True)
            yield from propagator.save(step, particles, ancestors=ancestors)
        return (yield from propagator.finish(particles))


def halved(reward: Tensor) -> Tensor:
    """Return the rows of the better half, each twice; for an odd number of rows, the last of them once."""
    best_first = reward.argsort(descending=True, stable=True)
    return best_first[torch.arange(len(reward)) // 2]


def main() -> None:
    """Print the reward of the search, and that of best of N with the same budget and seed."""
    model, prompt = load_model("scenes-base"), "three cars on sand background"
    for search in (BestOfN(), Halving()):
        result = generate(prompt, model=model, method=search, nfe=80, seed=3)
        print(f"{search}: reward {result.reward:.3f} for {result.spent.nfe} NFE")


if __name__ == "__main__":
    main()
