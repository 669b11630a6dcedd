"""CoDe, controlled denoising: blocks of unscored steps, and the best of M copies at the end of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rollflow.checks import whole
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.propagator import Finished, Progress, Propagator
from rollflow.search.streams import best_of_each, copied, first_labels, labels


@dataclass(frozen=True)
class CoDe(ScheduledSearch):
    """Move M copies of each stream by L transitions, keep the best of them and copy it again.

        x_s^{i,j} ~ p(x_s | x_t^i),  j = 1..M;    x_s^i = x_s^{i,j*},  j* = argmax_j r(x0(x_s^{i,j}))

    with L transitions between t and s, of which only the last is scored. It lies between best of N (L is the total
    number of transitions) and SVDD (L = 1).

    Singh et al. 2025, arXiv 2502.00968, algorithm 1, as Kim et al. 2025, arXiv 2503.19385, run it. The copies of the
    first block are not scored at first: the first choice is made L transitions later. Deviation: they are M noises of
    each stream; the release of arXiv 2503.19385 copies a single noise (``noises=False``). M is as large as the budget
    allows; if it cannot be the same for every block, later blocks have one more copy.

    Args:
        streams: Number N of independent streams, the best of which is returned (the paper: 2).
        block: Number L of transitions in a block (the paper: 2); the last block is shorter if L does not divide them.
        noises: Whether a stream starts from M noises, rather than from M copies of one noise (the paper), so that along
            an ODE, where copies stay equal, nothing can be chosen.

    Cost: N (M T + F) NFE, with T the sampler's steps and F the NFE of finishing; a reward call for each copy and block.
    Less than the cost of N copies of the longest block is left unspent. With guidance, a backward pass and a reward
    call for every evaluation that is not scored, and one of each and one more NFE for each of the N copied parents.
    """

    streams: int = 2
    block: int = 2
    noises: bool = True
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
            labelled = labels(self.streams, m) if step > 0 else first_labels(self.streams, m, noises=self.noises)
            particles = yield from propagator.advance(particles, step, *labelled, score=score, guided=guided)
            if score:
                best = best_of_each(particles.reward, self.streams)
                particles, ancestors = particles.rows(best), ancestors[best]
            yield from propagator.save(step, particles, ancestors=ancestors if step > 0 else None)
        return (yield from propagator.finish(particles))
