"""Controlled denoising: blocks of steps that nobody scores, and the best of M at the end of each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from rollflow.checks import whole
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics
from rollflow.search.base import Cost, Progress, Search
from rollflow.search.propagator import Finished, Propagator
from rollflow.search.streams import best_of_each, copied, labels


@dataclass(frozen=True)
class CoDe(Search):
    """M copies of each stream go L transitions on their own; the best of them is copied again.

        x_s^{i,j} ~ p(x_s | x_t^i),  j = 1..M;    x_s^i = x_s^{i,j*},  j* = argmax_j r(x0(x_s^{i,j}))

    with L transitions between t and s, none of which is scored but the last. Singh et al. 2025, arXiv 2502.00968,
    algorithm 1, as arXiv 2503.19385 runs it: between best of N (L of all transitions) and SVDD (L = 1). The copies of
    the first block are M noises a stream, which are not scored: the first choice is made L transitions later. M is what
    the budget buys; where it does not divide evenly, the later blocks get one copy more.

    Args:
        streams: N independent streams, the best of which is returned (the paper: 2).
        block: L; the last block is shorter where L does not divide the transitions (the paper: 2).

    Cost: N (M T + F) NFE, T the sampler's steps and F the finishing; a reward call a copy and block. What is left of
    the budget is less than N copies of the longest block. With guidance a backward pass and a reward call for every
    evaluation that is not scored, and one NFE more with each for the N parents that are copied.
    """

    streams: int = 2
    block: int = 2
    name = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("streams of code", self.streams, at_least=1)
        whole("block of code", self.block, at_least=1)

    def _looks(self, dynamics: Dynamics) -> list[int]:
        """Evaluations of one copy in every block; those of the first begin with its noise."""
        ends = [*range(0, dynamics.transitions, self.block), dynamics.transitions]
        lengths = [end - start for start, end in pairwise(ends)] or [0]
        return [lengths[0] + 1, *lengths[1:]]

    def _prices(self, dynamics: Dynamics) -> list[int]:
        """NFE of one copy in every block."""
        shown = dynamics.sampler.lookahead.extra_nfe
        prices = [looks * dynamics.propagate_nfe + shown for looks in self._looks(dynamics)]
        return [prices[0] - dynamics.sampler.kernel.extra_nfe, *prices[1:]]  # no kernel leads to a noise

    def _fixed(self, dynamics: Dynamics) -> int:
        """NFE that a stream pays whatever M is: for the leans of those that are copied, and for finishing."""
        return (len(self._looks(dynamics)) - 1) * dynamics.guidance_nfe + dynamics.finish_nfe

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return self.streams * (sum(self._prices(dynamics)) + self._fixed(dynamics))

    def _copies(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """M of every block."""
        if nfe < self.smallest_nfe(dynamics):
            raise BudgetTooSmall(self.name, nfe, self.smallest_nfe(dynamics))
        prices = self._prices(dynamics)
        m, left = divmod(nfe // self.streams - self._fixed(dynamics), sum(prices))
        copies = [m] * len(prices)
        for block in reversed(range(len(prices))):
            if left < prices[block]:
                break
            copies[block], left = m + 1, left - prices[block]
        return copies

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        copies = self._copies(dynamics, nfe)
        spent = sum(m * price for m, price in zip(copies, self._prices(dynamics), strict=True)) + self._fixed(dynamics)
        unscored = sum(m * (looks - 1) for m, looks in zip(copies, self._looks(dynamics), strict=True))
        leans = (unscored + len(copies) - 1) * dynamics.guidance_nfe
        calls = self.streams * (sum(copies) + leans + (dynamics.finish_nfe > 0))
        return Cost(self.streams * spent, calls, calls, backward_passes=self.streams * leans)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [self.cost(dynamics, nfe).nfe]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics, last = propagator.dynamics, propagator.dynamics.transitions
        copies = self._copies(dynamics, propagator.nfe)
        if resume is None:
            particles = yield from propagator.start(*labels(self.streams, copies[0]), score=last == 0, guided=True)
            if last == 0:
                particles = particles.rows(best_of_each(particles.reward, self.streams))
            spent = self.streams * copies[0] * (dynamics.evaluate_nfe if last == 0 else 1)
            done, left = 0, propagator.nfe - spent
            yield from save(Progress(0, particles, left, spent))
        else:
            done, particles, left = resume.step, resume.particles, resume.nfe_left
        for step in range(done + 1, last + 1):
            block, within = divmod(step - 1, self.block)
            m, chosen = copies[block], step == last or within == self.block - 1
            price = dynamics.child_nfe if chosen else dynamics.propagate_nfe
            spent, ancestors = self.streams * m * price, torch.arange(len(particles.x))
            if block > 0 and within == 0:
                parents = yield from propagator.guided(particles, step - 1)
                ancestors = copied(self.streams, m)
                particles = parents.rows(ancestors)
                spent += self.streams * dynamics.guidance_nfe
            particles = yield from propagator.advance(
                particles, step, *labels(self.streams, m), score=chosen, guided=not chosen
            )
            if chosen:
                best = best_of_each(particles.reward, self.streams)
                particles, ancestors = particles.rows(best), ancestors[best]
            left -= spent
            yield from save(Progress(step, particles, left, spent, ancestors=ancestors))
        return (yield from propagator.finish(particles))
