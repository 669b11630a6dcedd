"""Soft value-based decoding: one of M at every step."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from rollflow.checks import real, whole
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics, even_shares, linear_shares
from rollflow.search.base import Cost, Progress, Search
from rollflow.search.propagator import Finished, Particles, Propagator
from rollflow.search.streams import best_of_each, copied, labels, softmax_of_each


@dataclass(frozen=True)
class SVDD(Search):
    """At every step M children of each stream, of which the one with the highest reward goes on.

        x_s^{i,j} ~ p(x_s | x_t^i),  j = 1..M;    x_s^i = x_s^{i,j*},  j* = argmax_j r(x0(x_s^{i,j}))

    or, at a temperature a > 0, j* = j with probability softmax_j(r(x0(x_s^{i,j})) / a): a step of the law tilted by
    exp(r / a), for many children.

    Li et al. 2024, arXiv 2408.08252, algorithm 1; at zero temperature as arXiv 2503.19385 runs it, which also has the M
    that falls linearly ("adaptive"). The M noises are chosen among in the same way. M is what the budget buys; where an
    even one does not divide it, the later steps get the larger M.

    Args:
        streams: N independent streams, the best of which is returned (the paper: 2).
        temperature: a, >= 0, in units of the reward; 0 takes the best child, the first of equals.
        ratio: M of the last step over that of the first, in (0, 1]; between them M falls linearly.

    Cost: N (M T + F) NFE, T the sampler's steps and F the finishing; as many reward calls less the finishing steps.
    With guidance one NFE, reward call and backward pass more for each of the N (T - 1) parents.
    """

    streams: int = 2
    temperature: float = 0.0
    ratio: float = 1.0
    name = "svdd"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("streams of svdd", self.streams, at_least=1)
        real("temperature of svdd", self.temperature, at_least=0)
        real("ratio of svdd", self.ratio, above=0, at_most=1)

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        step = dynamics.child_nfe + dynamics.guidance_nfe
        return self.streams * (dynamics.evaluate_nfe + dynamics.transitions * step + dynamics.finish_nfe)

    def _split(self, draws: int, times: int) -> list[int]:
        return even_shares(draws, times) if self.ratio == 1 else linear_shares(draws, times, self.ratio)

    def _price(self, dynamics: Dynamics, draws: list[int]) -> int:
        """NFE of the noises and children of one stream."""
        return sum(draws) * dynamics.child_nfe - draws[0] * dynamics.sampler.kernel.extra_nfe

    def _draws(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """M of every evaluation time, for one stream."""
        if nfe < self.smallest_nfe(dynamics):
            raise BudgetTooSmall(self.name, nfe, self.smallest_nfe(dynamics))
        left = nfe // self.streams - dynamics.finish_nfe - dynamics.transitions * dynamics.guidance_nfe
        times = dynamics.transitions + 1
        totals = range(max(left // dynamics.child_nfe, times), left + 1)  # noises can be cheaper than children
        at = bisect_right(totals, left, key=lambda total: self._price(dynamics, self._split(total, times)))
        return self._split(totals[at - 1], times)

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        draws, leans = self._draws(dynamics, nfe), dynamics.transitions * dynamics.guidance_nfe
        spent = self._price(dynamics, draws) + leans + dynamics.finish_nfe
        calls = self.streams * (sum(draws) + leans + (dynamics.finish_nfe > 0))
        return Cost(self.streams * spent, calls, calls, backward_passes=self.streams * leans)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [self.cost(dynamics, nfe).nfe]

    def _select(self, propagator: Propagator, step: int, children: Particles) -> Particles:
        """The child of each stream that goes on."""
        if self.temperature == 0:
            return children.rows(best_of_each(children.reward, self.streams))
        uniform = propagator.noise.uniform(step, self.streams)
        return children.rows(softmax_of_each(children.reward, uniform, self.temperature))

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics = propagator.dynamics
        draws = self._draws(dynamics, propagator.nfe)
        if resume is None:
            noises = yield from propagator.start(*labels(self.streams, draws[0]))
            particles = self._select(propagator, 0, noises)
            spent = self.streams * draws[0] * dynamics.evaluate_nfe
            done, left = 0, propagator.nfe - spent
            yield from save(Progress(0, particles, left, spent))
        else:
            done, particles, left = resume.step, resume.particles, resume.nfe_left
        for step in range(done + 1, dynamics.transitions + 1):
            particles = yield from propagator.guided(particles, step - 1)
            parents = particles.rows(copied(self.streams, draws[step]))
            children = yield from propagator.advance(parents, step, *labels(self.streams, draws[step]))
            particles = self._select(propagator, step, children)
            spent = self.streams * (draws[step] * dynamics.child_nfe + dynamics.guidance_nfe)
            left -= spent
            yield from save(Progress(step, particles, left, spent))
        return (yield from propagator.finish(particles))
