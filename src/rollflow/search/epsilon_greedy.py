"""Epsilon-greedy noise search: at every step a noise moves among its neighbours, and now and then anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rollflow.checks import real, whole
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.neighbours import in_ball
from rollflow.search.propagator import Finished, Particles, Progress, Propagator


@dataclass(frozen=True)
class EpsilonGreedy(ScheduledSearch):
    """Look for a good noise of every step by local search, some of whose candidates are fresh draws.

        at every step:    n ~ N(0, I)
            repeat:       y_i ~ N(0, I) with probability epsilon, else n + u_i radius sqrt(d) w_i,    i = 1..N
                          n = argmax_i r(x0(x_s(y_i)))
            x_s = x_s(n)

    with u_i uniform in [0, 1), w_i a uniform direction, d the number of elements of a noise, and x_s(y) the step from
    x_t with the noise y.

    Ramesh & Mardani 2025, arXiv 2506.03164 (there N = 4, 20 rounds a step, radius 0.15, epsilon 0.4). A noise moves to
    the best candidate even if that is worse than itself, as published. Deviations: the first noise of a trajectory is
    searched for in the same way, whereas the paper draws it; the state of the last best candidate goes on as it is,
    where the release takes the step once more; a round in which no candidate may be chosen (reward -inf) leaves the
    noise where it is. A step has as many children as the budget buys, and later ones have one more if it cannot be the
    same for all; its rounds are as many as they fill, and what is left over is spread among the last of them.

    Args:
        candidates: Number N of candidates of a round, at least.
        epsilon: Probability of a fresh draw, in [0, 1]; 1 is the best of the last round of draws.
        radius: Largest distance of a neighbour, > 0, in typical lengths of a noise.

    Cost: M T + F NFE, with M the children of a step, T the sampler's steps and F the NFE of finishing; M T + 1 reward
    calls, or M T if finishing is free. With guidance one more NFE, reward call and backward pass for each of the T - 1
    parents.
    """

    candidates: int = 4
    epsilon: float = 0.4
    radius: float = 0.15
    name = "epsilon-greedy"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("candidates of epsilon-greedy", self.candidates, at_least=1)
        real("epsilon of epsilon-greedy", self.epsilon, at_least=0, at_most=1)
        real("radius of epsilon-greedy", self.radius, above=0)

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        times = dynamics.sampler.steps
        children = even_shares(times + surplus, times)
        return Schedule([Stage(m, parents=int(k > 0)) for k, m in enumerate(children)], finished=1)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages = self.bought(propagator).stages
        steps, particle = propagator.begin(resume)
        for step in steps:
            if step > 0:
                particle = yield from propagator.guided(particle, step - 1)
            particle = yield from self._step(propagator, particle, step, stages[step].rows)
            yield from propagator.save(step, particle)
        return (yield from propagator.finish(particle))

    def _step(self, propagator: Propagator, parent: Particles, step: int, children: int) -> Asking[Particles]:
        """Return the child of the noise that the rounds of a step end with."""
        rounds = even_shares(children, max(1, children // self.candidates))
        noise, chosen, first = propagator.noise, None, 0
        pivot = noise.normals(step, [0], [0])
        explore, reach = noise.uniform(step, 2 * children).view(2, children)
        for number, n in enumerate(rounds, 1):
            of = slice(first, first + n)
            fresh = noise.normals(step, [number] * n, range(n))
            near = in_ball(pivot, fresh, reach[of], self.radius)
            keep = (explore[of] < self.epsilon).view(n, *[1] * (fresh.ndim - 1))
            candidates, first = torch.where(keep, fresh, near), first + n
            parents = parent.rows(torch.zeros(n, dtype=torch.int64)) if step > 0 else parent
            scored = yield from propagator.advance_with(parents, step, candidates)
            if chosen is None or float(scored.best().reward) > -math.inf:
                pivot, chosen = candidates[scored.best_row : scored.best_row + 1], scored.best()
        assert chosen is not None
        return chosen
