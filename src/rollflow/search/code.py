"""Controlled denoising: blocks of steps that nobody scores, and the best of M at the end of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rollflow.checks import whole
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.propagator import Finished, Progress, Propagator
from rollflow.search.streams import best_of_each, copied, labels


@dataclass(frozen=True)
class CoDe(ScheduledSearch):
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

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        last, n = dynamics.transitions, self.streams
        ends = [*range(self.block, last, self.block), last]
        copies = even_shares(len(ends) + surplus, len(ends))
        stages = [Stage(n * copies[0], score=last == 0, guided=last > 0)]
        for step in range(1, last + 1):
            block, within = divmod(step - 1, self.block)
            chosen, copy = step == last or within == self.block - 1, block > 0 and within == 0
            stages.append(Stage(n * copies[block], score=chosen, guided=not chosen, parents=n * copy))
        return Schedule(stages, finished=n)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages = self.bought(propagator).stages
        steps, particles = propagator.begin(resume)
        for step in steps:
            rows, score, guided, copy, *_ = stages[step]
            m, ancestors = rows // self.streams, torch.arange(rows)
            if copy:
                parents = yield from propagator.guided(particles, step - 1)
                ancestors = copied(self.streams, m)
                particles = parents.rows(ancestors)
            particles = yield from propagator.advance(
                particles, step, *labels(self.streams, m), score=score, guided=guided
            )
            if score:
                best = best_of_each(particles.reward, self.streams)
                particles, ancestors = particles.rows(best), ancestors[best]
            yield from propagator.save(step, particles, ancestors=ancestors if step > 0 else None)
        return (yield from propagator.finish(particles))
