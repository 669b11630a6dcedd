"""Rollover Budget Forcing, the paper's search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from rollflow.checks import whole
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking, save
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.base import Cost, Progress, Search
from rollflow.search.propagator import Finished, Particles, Propagator
from rollflow.search.rbf.acceptance import Acceptance, BestSoFar, Drawn
from rollflow.search.rbf.quota import QuotaSchedule, UniformQuota


class _Rollover(NamedTuple):
    """What a chain carries beside its particle: the best reward so far and the children saved by early finds."""

    best: float
    carry: int


@dataclass(frozen=True)
class RolloverBudget(Search):
    """Children one at a time; the first that beats the best so far is taken and what it saved rolls over.

    Each chain, with r* the best reward so far and Q the transition's share of what follows the initial draws::

        draw n0 noises, keep the best                                         r* = its reward
        at every transition, with quota Q + carry (at the last: all that is left):
            draw children of the same parent one at a time
            the first with r > r*: take it, carry = unspent quota             (not at the last transition)
            quota spent: take this step's best child, carry = 0
            r* = max(r*, r of the child taken)

    Kim et al. 2025, arXiv 2503.19385, section 5 and algorithm 1. Deviation: finishing is inside the budget. Chains
    share nothing but the total, and the best finished chain is returned. The two decisions are objects: another
    acceptance replaces "r > r*" (whatever it stops at, this step's best child is what goes on), another quota schedule
    the even Q.

    Args:
        chains: Independent chains, each with an even share of the budget (the paper: 2).
        initial: n0, noises drawn at the start of each chain (the paper: 25).
        acceptance: When to stop drawing (the paper: at a child that beats the best so far).
        quota: Q of every transition (the paper: the same for all).

    Cost: the whole budget, up to the remainder where a child costs more than 1 NFE; a reward call a draw. With guidance
    one NFE, reward call and backward pass of it for the parent of every transition.
    """

    chains: int = 2
    initial: int = 25
    acceptance: Acceptance = BestSoFar()
    quota: QuotaSchedule = UniformQuota()
    name = "rbf"
    states = (_Rollover,)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("chains of rbf", self.chains, at_least=1)
        whole("initial of rbf", self.initial, at_least=1)

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        steps = dynamics.transitions * (dynamics.child_nfe + dynamics.guidance_nfe)
        return self.chains * (self.initial * dynamics.evaluate_nfe + steps + dynamics.finish_nfe)

    def _draws(self, dynamics: Dynamics, share: int) -> tuple[int, int]:
        """Initial draws and children that one chain's share pays for."""
        left = share - dynamics.finish_nfe - dynamics.transitions * dynamics.guidance_nfe
        if dynamics.transitions == 0:
            return left // dynamics.evaluate_nfe, 0
        return self.initial, (left - self.initial * dynamics.evaluate_nfe) // dynamics.child_nfe

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        if nfe < self.smallest_nfe(dynamics):
            raise BudgetTooSmall(self.name, nfe, self.smallest_nfe(dynamics))
        return even_shares(nfe, self.chains)

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        leans = dynamics.transitions * dynamics.guidance_nfe
        spent = calls = 0
        for share in self.shares(dynamics, nfe):
            first, children = self._draws(dynamics, share)
            spent += first * dynamics.evaluate_nfe + children * dynamics.child_nfe + leans + dynamics.finish_nfe
            calls += first + children + leans + (dynamics.finish_nfe > 0)
        return Cost(spent, calls, calls, backward_passes=self.chains * leans)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        dynamics = propagator.dynamics
        first, children = self._draws(dynamics, propagator.nfe)
        quotas = self.quota.split(children, dynamics.transitions) if dynamics.transitions else []
        if resume is None:
            noises = yield from propagator.start([0] * first, range(first))
            particle = noises.best()
            done, left, rollover = 0, children, _Rollover(float(particle.reward), 0)
            spent = first * dynamics.evaluate_nfe
            yield from save(Progress(0, particle, propagator.nfe - spent, spent, rollover))
        else:
            done, particle, rollover = resume.step, resume.particles, resume.extra
            leans = (dynamics.transitions - done) * dynamics.guidance_nfe
            left = (resume.nfe_left - dynamics.finish_nfe - leans) // dynamics.child_nfe
        for step in range(done + 1, dynamics.transitions + 1):
            last = step == dynamics.transitions
            particle = yield from propagator.guided(particle, step - 1)
            quota = left if last else quotas[step - 1] + rollover.carry
            drawn = Drawn((), float(particle.reward), rollover.best)
            taken: Particles | None = None
            while len(drawn.rewards) < quota:
                child = yield from propagator.advance(particle, step, [0], [len(drawn.rewards)])
                drawn = drawn._replace(rewards=(*drawn.rewards, float(child.reward)))
                if taken is None or child.reward > taken.reward:
                    taken = child
                if not last and float(taken.reward) > -math.inf and self.acceptance.accepts(drawn):
                    break
            assert taken is not None
            used = len(drawn.rewards)
            particle, left = taken, left - used
            rollover = _Rollover(max(rollover.best, float(taken.reward)), quota - used)
            leans = (dynamics.transitions - step) * dynamics.guidance_nfe
            kept = dynamics.finish_nfe + leans + left * dynamics.child_nfe
            spent = used * dynamics.child_nfe + dynamics.guidance_nfe
            yield from save(Progress(step, particle, kept, spent, rollover))
        return (yield from propagator.finish(particle))
