"""Soft value-based decoding: best of M at every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rollflow.errors import BudgetTooSmall, RollflowError
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import Cost, Finished, Particles, Progress, Search, Walk


@dataclass(frozen=True)
class SVDD(Search):
    """At every step M children of each stream, of which the one with the highest reward goes on.

        x_s^{i,j} ~ p(x_s | x_t^i),  j = 1..M;    x_s^i = x_s^{i,j*},  j* = argmax_j r(x0(x_s^{i,j}))

    Li et al. 2024, arXiv 2408.08252, algorithm 1 at zero temperature, as arXiv 2503.19385 runs it. M is what the budget
    buys; where it does not divide evenly the later steps get the larger M.

    Args:
        streams: N independent streams, the best of which is returned (the paper: 2).

    Cost: N (M T + F) NFE, T the sampler's steps and F the finishing; as many reward calls less the finishing steps.
    With guidance one NFE, reward call and backward pass more for each of the N (T - 1) parents.
    """

    streams: int = 2
    name = "svdd"

    def __post_init__(self) -> None:
        if self.streams < 1:
            raise RollflowError(f"svdd needs at least 1 stream, not {self.streams}")

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        step = dynamics.child_nfe + dynamics.lean_nfe
        return self.streams * (dynamics.look_nfe + dynamics.transitions * step + dynamics.finish_nfe)

    def _draws(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """M of every evaluation time, for one stream."""
        if nfe < self.smallest_nfe(dynamics):
            raise BudgetTooSmall(self.name, nfe, self.smallest_nfe(dynamics))
        left = nfe // self.streams - dynamics.finish_nfe - dynamics.transitions * dynamics.lean_nfe
        if dynamics.transitions == 0:
            return [left // dynamics.look_nfe]
        first = left // (dynamics.look_nfe + dynamics.transitions * dynamics.child_nfe)
        return [first, *even_shares((left - first * dynamics.look_nfe) // dynamics.child_nfe, dynamics.transitions)]

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        first, *later = self._draws(dynamics, nfe)
        leans = len(later) * dynamics.lean_nfe
        spent = first * dynamics.look_nfe + sum(later) * dynamics.child_nfe + leans + dynamics.finish_nfe
        calls = self.streams * (first + sum(later) + leans + (dynamics.finish_nfe > 0))
        return Cost(self.streams * spent, calls, calls, backward_passes=self.streams * leans)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [self.cost(dynamics, nfe).nfe]

    def _select(self, children: Particles) -> Particles:
        """The best child of each stream; children lie stream by stream."""
        per_stream = len(children.reward) // self.streams
        best = children.reward.view(self.streams, per_stream).argmax(1)
        return children.rows(torch.arange(self.streams) * per_stream + best)

    def population(self, walk: Walk, resume: Progress | None = None) -> Asking[Finished]:
        dynamics = walk.dynamics
        draws = self._draws(dynamics, walk.nfe)

        def labels(m: int) -> tuple[list[int], list[int]]:
            """(row, draw) of M children a stream."""
            return [i for i in range(self.streams) for _ in range(m)], list(range(m)) * self.streams

        if resume is None:
            particles = self._select((yield from walk.start(*labels(draws[0]))))
            spent = self.streams * draws[0] * dynamics.look_nfe
            done, left = 0, walk.nfe - spent
            yield from save(Progress(0, particles, left, spent))
        else:
            done, particles, left = resume.step, resume.particles, resume.nfe_left
        for step in range(done + 1, dynamics.transitions + 1):
            particles = yield from walk.lean(particles, step - 1)
            parents = particles.rows(torch.arange(self.streams).repeat_interleave(draws[step]))
            particles = self._select((yield from walk.advance(parents, step, *labels(draws[step]))))
            spent = self.streams * (draws[step] * dynamics.child_nfe + dynamics.lean_nfe)
            left -= spent
            yield from save(Progress(step, particles, left, spent))
        return (yield from walk.finish(particles))
