"""SVDD, soft value-based decoding: one of M children at every step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from rollflow.checks import real, whole
from rollflow.errors import BadSetting
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares, linear_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.recombination import LEAST, recombined
from rollflow.search.streams import best_of_each, first_labels, labels, softmax_of_each


@dataclass(frozen=True)
class SVDD(ScheduledSearch):
    """Draw M children of each stream at every step and continue with the one with the highest reward.

        x_s^{i,j} ~ p(x_s | x_t^i),  j = 1..M;    x_s^i = x_s^{i,j*},  j* = argmax_j r(x0(x_s^{i,j}))

    or, at a temperature a > 0, j* = j with probability softmax_j(r(x0(x_s^{i,j})) / a), which for many children is a
    step of the law tilted by exp(r / a).

    Li et al. 2024, arXiv 2408.08252, algorithm 1; at zero temperature as Kim et al. 2025, arXiv 2503.19385, run it, who
    also let M fall linearly ("adaptive"). Deviation: one of M noises is chosen in the same way before the first step;
    the release of arXiv 2503.19385 starts from a single noise (``noises=False``). M is as large as the budget allows;
    if it cannot be the same at every step, later steps have the larger M.

    Args:
        streams: Number N of independent streams, the best of which is returned (the paper: 2).
        temperature: Temperature a of the choice, >= 0, in units of the reward; 0 takes the best child, the first of
            equals.
        ratio: M of the last step divided by that of the first, in (0, 1]; between them M falls linearly.
        noises: Whether a stream starts from the best of M noises, rather than from one noise that is evaluated M times
            (the paper), so that along an ODE, where children of a parent do not differ, nothing can be chosen.
        recombine: Whether one of the M children of each stream, if M is at least four, has a noise made of the noises
            and rewards of the others (``search.recombination``), and comes first among equals; refused at a temperature
            above 0, since it does not follow the law that is tilted.

    Cost: N (M T + F) NFE, with T the sampler's steps and F the NFE of finishing; N (M T + 1) reward calls, or N M T if
    finishing is free. With guidance one more NFE, reward call and backward pass for each of the N (T - 1) parents.
    """

    streams: int = 2
    temperature: float = 0.0
    ratio: float = 1.0
    noises: bool = True
    recombine: bool = False
    name = "svdd"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("streams of svdd", self.streams, at_least=1)
        real("temperature of svdd", self.temperature, at_least=0)
        real("ratio of svdd", self.ratio, above=0, at_most=1)
        if self.recombine and self.temperature > 0:
            raise BadSetting(
                f"svdd at temperature {self.temperature:g} tilts the law of the kernel, which a recombined noise does "
                "not follow; give recombine=false or temperature=0"
            )

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        times = dynamics.sampler.steps
        split = even_shares if self.ratio == 1 else partial(linear_shares, ratio=self.ratio)
        draws = split(times + surplus, times)
        return Schedule(
            [Stage(self.streams * m, parents=self.streams * (k > 0)) for k, m in enumerate(draws)], self.streams
        )

    def _select(self, propagator: Propagator, step: int, children: Particles) -> Particles:
        """Choose the child that each stream continues with."""
        if self.temperature == 0:
            return children.rows(best_of_each(children.reward, self.streams))
        uniform = propagator.noise.uniform(step, self.streams)
        return children.rows(softmax_of_each(children.reward, uniform, self.temperature))

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages = self.bought(propagator).stages
        steps, particles = propagator.begin(resume)
        for step in steps:
            m = stages[step].rows // self.streams
            if step == 0:
                children = yield from propagator.start(*first_labels(self.streams, m, noises=self.noises))
            else:
                parents = yield from propagator.guided(particles, step - 1)
                children = yield from self._children(propagator, parents, step, m)
            particles = self._select(propagator, step, children)
            yield from propagator.save(step, particles)
        return (yield from propagator.finish(particles))

    def _children(self, propagator: Propagator, parents: Particles, step: int, m: int) -> Asking[Particles]:
        """Draw m children of the one parent of each stream, ordered by stream."""
        heirs = int(self.recombine and m > LEAST and propagator.dynamics.sampler.kernel.stochastic)
        rows, draws = labels(self.streams, m - heirs)
        children = yield from propagator.advance(parents.rows(torch.tensor(rows)), step, rows, draws)
        if not heirs:
            return children
        of, noise = torch.tensor(rows), propagator.noise.normals(step, rows, draws)
        found = [recombined(noise[of == i], children.reward[of == i]) for i in range(self.streams)]
        fresh = [propagator.noise.normals(step, [i], [m - 1]) for i in range(self.streams)]
        z = torch.cat([new if made is None else made for made, new in zip(found, fresh, strict=True)])
        heir = yield from propagator.advance_with(parents, step, z)
        by_stream = torch.cat([torch.arange(self.streams), of]).argsort(stable=True)
        return heir.followed_by(children).rows(by_stream)
