"""Demon: the noises of a step are combined by their rewards into the one that is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rollflow.checks import whole
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.demon.weights import NoiseWeights, TanhWeights
from rollflow.search.propagator import Finished, Progress, Propagator
from rollflow.search.recombination import combined


@dataclass(frozen=True)
class Demon(ScheduledSearch):
    """Try K noises at every step, combine them by the rewards that they lead to, and step with the combination.

        z_j ~ N(0, I),    r_j = r(x0(x_s(z_j))),    w = weights(r),    j = 1..K
        z* = sqrt(d) sum_j w_j z_j / |sum_j w_j z_j|,    x_s = x_s(z*)

    with x_s(z) the step from x_t with the noise z and d the number of elements of a noise. Along one trajectory, whose
    first noise is drawn and not chosen.

    Yeh, Lee & Chen 2025, arXiv 2410.05760, algorithm 1, with its Tanh or its Boltzmann weights. Deviations: the paper
    steps along the SDE of Karras et al. 2022, arXiv 2206.00364, by Heun's method, leaves it for the ODE at low noise,
    and scores samples to which the ODE takes the children; here any kernel will do, and the sampler's look-ahead is
    what is scored (the look-ahead ``ode`` is theirs). A child with reward -inf has no part in the combination; if the
    last combination may not be chosen, the best of the last children takes its place. With a deterministic kernel,
    which is allowed, all children are the same.

    Args:
        weights: Weights of the noises; ``tanh`` or ``boltzmann``.
        noises: Number K of noises of every step; None is as many as the budget buys, and one more at later steps if it
            cannot be the same at all.

    Cost: 1 + (K + 1) (T - 1) + F NFE, with T the sampler's steps and F the NFE of finishing; K (T - 1) + 1 reward
    calls. With guidance T - 1 backward passes and as many more reward calls.
    """

    weights: NoiseWeights = TanhWeights()
    noises: int | None = None
    name = "demon"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noises is not None:
            whole("noises of demon", self.noises, at_least=1)

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        """Return the children of every step, and after them the one state that goes on."""
        last, free = dynamics.transitions, dynamics.finish_nfe == 0
        tries = [] if last == 0 else even_shares(last + surplus, last)
        if self.noises is not None:
            tries = [self.noises] * last
        taken = [Stage(1, score=free and k == last, guided=k < last) for k in range(last + 1)]
        pairs = zip(map(Stage, tries), taken[1:], strict=True)
        return Schedule([taken[0], *(stage for pair in pairs for stage in pair)], finished=1)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages = self.bought(propagator).stages
        steps, particle = propagator.begin(resume)
        for step in steps:
            noise, children, taken = propagator.noise.normals(step, [0], [0]), None, stages[2 * step]
            if step > 0:
                draws = stages[2 * step - 1].rows
                noise = propagator.noise.normals(step, [0] * draws, range(draws))
                parents = particle.rows(torch.zeros(draws, dtype=torch.int64))
                children = yield from propagator.advance_with(parents, step, noise)
                together = combined(noise, self.weights(children.reward))
                noise = noise[:1] if together is None else together
            particle = yield from propagator.advance_with(particle, step, noise, score=taken.score, guided=taken.guided)
            if children is not None and particle.reward == -math.inf:
                particle = children.best()
            yield from propagator.save(step, particle)
        return (yield from propagator.finish(particle))
