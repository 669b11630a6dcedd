"""RBF, rollover budget forcing: the search of the paper."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rollflow.checks import whole
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Cost, Schedule, Stage
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.purpose import Purpose
from rollflow.search.rbf.acceptance import Acceptance, BestSoFar, Drawn
from rollflow.search.rbf.quota import QuotaSchedule, UniformQuota
from rollflow.search.recombination import LEAST, recombined


class _Rollover(NamedTuple):
    """State of a chain in addition to its particle.

    Args:
        best: Best reward of the particles taken so far.
        carry: Children left unspent by the last transition.
    """

    best: float
    carry: int


@dataclass(frozen=True)
class RolloverBudget(ScheduledSearch):
    """Draw children one at a time and take the first that beats the best so far; the unspent quota rolls over.

    Each chain, with r* its best reward so far and Q the transition's share of the children that the budget buys::

        draw n0 noises, keep the best                                         r* = its reward
        at every transition, with quota Q + carry (at the last: all that is left):
            draw children of the same parent one at a time
            the first with r > r*: take it, carry = unspent quota             (not at the last transition)
            quota spent: take this step's best child, carry = 0
            r* = max(r*, r of the child taken)

    Kim et al. 2025, arXiv 2503.19385, section 5 and algorithm 1. Deviation: finishing is paid for within the budget.
    Chains share nothing but the total, and the best finished chain is returned. Both decisions are objects: another
    acceptance replaces "r > r*" (the step's best child is kept in any case), and another quota schedule replaces the
    even Q, such as ``PublishedQuota``, that of the paper's release.

    Args:
        chains: Number of independent chains, each with an even share of the budget (the paper: 2).
        initial: Number n0 of noises drawn at the start of each chain (the paper: 25).
        acceptance: Rule that stops drawing (the paper: at a child that beats the best so far).
        quota: Rule that gives each transition its quota Q (the paper: the same for all).
        recombine: Whether the fourth, eighth, sixteenth, ... child of a transition has a noise made of the noises and
            rewards of those before it (``search.recombination``; not in the paper).

    Cost: the whole budget, up to a remainder if a child costs more than 1 NFE and to the ``reserve`` of the quota
    schedule, 1 NFE of each chain for ``PublishedQuota`` and none for the others; a reward call for each draw. With
    guidance, one of the NFE, a reward call and a backward pass go to the parent of every transition.
    """

    chains: int = 2
    initial: int = 25
    acceptance: Acceptance = BestSoFar()
    quota: QuotaSchedule = UniformQuota()
    recombine: bool = False
    name = "rbf"
    states: ClassVar[tuple[type, ...]] = (_Rollover,)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("chains of rbf", self.chains, at_least=1)
        whole("initial of rbf", self.initial, at_least=1)

    @property
    def populations(self) -> int:
        return self.chains

    def prepared(self, purpose: Purpose) -> RolloverBudget:
        return replace(self, quota=self.quota.prepared(purpose))

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        """Return the draws of every transition without rollover, which moves children but keeps their number."""
        if dynamics.transitions == 0:
            return Schedule([Stage(self.initial + surplus)], finished=1)
        quotas = self.quota.along(dynamics).split(dynamics.transitions + surplus, dynamics.transitions)
        return Schedule([Stage(self.initial), *(Stage(quota, parents=1) for quota in quotas)], finished=1)

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return super().smallest_nfe(dynamics) + self.chains * self.quota.reserve

    def _surplus(self, dynamics: Dynamics, nfe: int) -> int:
        return super()._surplus(dynamics, nfe - self.quota.reserve)

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        smallest = self.smallest_nfe(dynamics)
        if nfe < smallest:
            raise BudgetTooSmall(self.name, nfe, smallest)
        return super().cost(dynamics, nfe)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        self.cost(dynamics, nfe)
        return even_shares(nfe, self.chains)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        stages = self.bought(propagator).stages
        steps, particle = propagator.begin(resume)
        best, carry = (-math.inf, 0) if resume is None else resume.extra
        for step in steps:
            quota = stages[step].rows + carry
            if step == 0:
                particle = (yield from propagator.advance(particle, 0, [0] * quota, range(quota))).best()
            else:
                parent = yield from propagator.guided(particle, step - 1)
                particle, draws = yield from self._draw(propagator, parent, step, quota, best)
                carry = quota - draws
            best = max(best, float(particle.reward))
            yield from propagator.save(step, particle, _Rollover(best, carry))
        return (yield from propagator.finish(particle))

    def _draw(
        self, propagator: Propagator, parent: Particles, step: int, quota: int, best: float
    ) -> Asking[tuple[Particles, int]]:
        """Draw children until one is accepted or the quota is spent; return the best of them and their number."""
        last, taken = step == propagator.dynamics.transitions, None
        drawn, noises = Drawn((), float(parent.reward), best), list[Tensor]()
        while len(drawn.rewards) < quota:
            noises.append(self._noise(propagator, step, noises, drawn.rewards))
            child = yield from propagator.advance_with(parent, step, noises[-1])
            drawn = drawn._replace(rewards=(*drawn.rewards, float(child.reward)))
            if taken is None or child.reward > taken.reward:
                taken = child
            if not last and float(taken.reward) > -math.inf and self.acceptance.accepts(drawn):
                break
        assert taken is not None
        return taken, len(drawn.rewards)

    def _noise(
        self, propagator: Propagator, step: int, noises: list[Tensor], rewards: tuple[float, ...]
    ) -> Float[Tensor, " 1 *state"]:
        """Return the noise of the next child, given those of its siblings and their rewards."""
        count, made, stochastic = len(noises) + 1, None, propagator.dynamics.sampler.kernel.stochastic
        if self.recombine and stochastic and count > LEAST and count.bit_count() == 1:
            made = recombined(torch.cat(noises), torch.tensor(rewards, dtype=torch.float64))
        return propagator.noise.normals(step, [0], [count - 1]) if made is None else made
