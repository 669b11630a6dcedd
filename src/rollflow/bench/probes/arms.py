"""The arms of the comparisons on closed-form models: every search with its dynamics and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama
from rollflow.engine import Job, Task
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, CoDe, RolloverBudget, Search, SearchOverPaths


class ProbeArm(NamedTuple):
    """A search with its dynamics.

    Args:
        sampler: Dynamics of the particles; None is the search's own choice.
        search: Function from the budget in NFE to the search.
    """

    sampler: Sampler | None
    search: Callable[[int], Search]

    def job(self, task: Task, nfe: int, seed: int) -> Job:
        """Return the job with a budget and a seed. Raises a BudgetTooSmall if the search cannot run in it."""
        search = self.search(nfe)
        return Job(task, search, nfe, seed) if self.sampler is None else Job(task, search, nfe, seed, self.sampler)


def paths(nfe: int) -> SearchOverPaths:
    """Return search over paths as in arXiv 2503.19385; below 100 NFE, with one stream of 2 copies."""
    return SearchOverPaths() if nfe >= 100 else SearchOverPaths(streams=1, copies=2)


def rollover(nfe: int) -> RolloverBudget:
    """Return RBF as in arXiv 2503.19385; below 200 NFE, initial noises use a quarter of each chain's share."""
    return RolloverBudget(initial=max(1, min(25, nfe // 8)))


TEMPERATURE, RATIO, GUIDANCE = 0.5, 0.25, 0.1
ODE = Sampler(interpolant=Linear(), kernel=Euler(), finish=True)
SDE = Sampler(interpolant=Linear(), kernel=EulerMaruyama(), finish=True)
CONVERTED = Sampler(interpolant=VP(), kernel=EulerMaruyama(), finish=True)
GUIDED = replace(SDE, guidance=DPS(GUIDANCE))

MIXTURE_ARMS: dict[str, ProbeArm] = {
    "best of N, Linear-ODE": ProbeArm(ODE, lambda nfe: BestOfN()),
    "best of N, Linear-SDE": ProbeArm(SDE, lambda nfe: BestOfN()),
    "search over paths, Linear-ODE": ProbeArm(ODE, paths),
    "SMC, Linear-SDE": ProbeArm(SDE, lambda nfe: SMC(temperature=TEMPERATURE)),
    "SMC, falling, Linear-SDE": ProbeArm(SDE, lambda nfe: SMC(temperature=TEMPERATURE, ratio=RATIO)),
    "CoDe, Linear-SDE": ProbeArm(SDE, lambda nfe: CoDe()),
    "SVDD, argmax, Linear-SDE": ProbeArm(SDE, lambda nfe: SVDD()),
    "SVDD, softmax, Linear-SDE": ProbeArm(SDE, lambda nfe: SVDD(temperature=TEMPERATURE)),
    "RBF, Linear-SDE": ProbeArm(SDE, rollover),
    "RBF, one noise, Linear-SDE": ProbeArm(SDE, lambda nfe: RolloverBudget(initial=1)),
    "RBF, VP-SDE": ProbeArm(CONVERTED, rollover),
    "best of N + DPS, Linear-SDE": ProbeArm(GUIDED, lambda nfe: BestOfN()),
    "RBF + DPS, Linear-SDE": ProbeArm(GUIDED, rollover),
}
PLAIN: dict[str, Sampler] = {"Linear-ODE": ODE, "Linear-SDE": SDE, "VP-SDE": CONVERTED}

SETTINGS = f"""\
Settings are those of arXiv 2503.19385 where it gives them, with 10 evaluation times and finishing within the budget.

- Search over paths: 2 streams of 5 copies; below 100 NFE, where these do not fit, one stream of 2 copies.
- SMC: the difference potential, resampling at every step, temperature {TEMPERATURE}; falling: K of the last step is
  {RATIO} times that of the first. The softmax of SVDD has the same temperature.
- CoDe and SVDD: 2 streams.
- RBF: 2 chains of 25 initial noises each from 200 NFE on. Below that noises use a quarter of each chain's share,
  since 25 would leave it little or nothing. On the linear interpolant the exact clean estimate at noise level 1 is
  the same for every noise, so that several of them cannot help here: the row with one noise shows what they cost.
- DPS: guidance shifts every step by {GUIDANCE}, the standard deviation of a mode. This choice determines how often the
  mode is hit: more often with larger shifts. In RBF each parent pays one NFE for its gradient; best of N
  differentiates evaluations that it makes anyway. Backward passes are not counted as NFE.
- "needs n": the search cannot run within the budget with these settings; n is the smallest budget for which it can.
"""
"""Notes on the settings of the arms, printed with the table."""
