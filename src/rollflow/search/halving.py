"""Successive halving: many trajectories begin, and at some noise levels only the best go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rollflow.checks import real, refused, whole
from rollflow.errors import BadSetting
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.halving_design import designed
from rollflow.search.profile import Profile, warn_of_other
from rollflow.search.propagator import Finished, Progress, Propagator
from rollflow.search.purpose import Purpose
from rollflow.search.rungs import Rungs, fractions_of, widths_of


@dataclass(frozen=True)
class Halving(ScheduledSearch):
    """Begin many trajectories and let only the best of them go on below each of some noise levels, the rungs.

        x^i ~ sampler,  i = 1..n_0
        at rung r = 1, 2, ...:    the best n_r by r(x0(x^i)) go on,    n_r = kept_r n_0
        return the best finished sample

    Trajectories are those of best of N, so that any kernel will do, the ODE too. With ``brackets`` B > 1 it is
    Hyperband: bracket b = 0..B-1, with an even share of the NFE, leaves out the first b rungs, as a hedge against early
    estimates that say little; the last of len(rungs) + 1 brackets is best of N.

    Jamieson & Talwalkar 2016, arXiv 1502.07943; Li et al. 2018, arXiv 1603.06560 (brackets). For samplers: Su et al.
    2025, arXiv 2508.12361 (funnels, of resampled particles); Yu et al. 2025, arXiv 2511.22242 (TTSnap, with rewards
    trained for estimates). Deviation: rungs are any noise levels, and their sizes any shares, which
    ``search.halving_design`` finds from the trajectories of a profile. By default half go on at each of three levels.

    Args:
        rungs: Linear noise levels, falling, at the first evaluation time at or below which trajectories end; those that
            no evaluation time reaches play no part.
        kept: Share of the first trajectories that go on from each rung, in (0, 1] and not rising.
        brackets: Number B of brackets, at most one more than rungs.
        profile: File of a profile (``rollflow bench profile``), best one along the same kernel: rungs and kept are then
            those that would have found the best of its samples at this budget. It is read when a job is made, and what
            was found is recorded.

    Cost: the sum over evaluation times of the trajectories that reach them, and F NFE for finishing each one at the
    end. Less than the next trajectory would cost up to a rung is left of the budget. One reward call for each
    trajectory at each rung and at the end. With guidance a backward pass for every evaluation but the last, and a
    reward call unless it is scored.
    """

    rungs: tuple[float, ...] = (0.75, 0.5, 0.25)
    kept: tuple[float, ...] = (0.5, 0.25, 0.125)
    brackets: int = 1
    profile: Path | None = None
    name = "halving"
    default_kernel = "ode"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 >= a > b for a, b in zip(self.rungs, (*self.rungs[1:], 0.0), strict=False)):
            raise refused("rungs of halving", "noise levels that fall strictly, from at most 1 to above 0", self.rungs)
        if len(self.kept) != len(self.rungs):
            raise refused("kept of halving", f"{len(self.rungs)} shares, one for each rung", self.kept)
        for place, (share, before) in enumerate(zip(self.kept, (1.0, *self.kept), strict=False)):
            real(f"kept[{place}] of halving", share, above=0, at_most=before)
        most = len(self.rungs) + 1
        whole(f"brackets of halving with {len(self.rungs)} rungs", self.brackets, at_least=1, at_most=most)
        if self.profile is not None:
            object.__setattr__(self, "profile", Path(self.profile))
            if replace(self, profile=None) != Halving():
                raise BadSetting("halving takes its rungs from its profile; give either these or a profile")

    def prepared(self, purpose: Purpose) -> Halving:
        if self.profile is None:
            return self
        known = Profile.load(self.profile)
        warn_of_other(known, purpose)
        found = designed(known.trajectories, max(purpose.nfe, len(known.levels)), known.levels)
        return replace(self, rungs=found.levels, kept=found.kept, profile=None)

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        fractions = self._fractions(dynamics)
        *counts, finished = map(sum, zip(*widths_of(fractions, surplus), strict=True))
        last, free, first = dynamics.transitions, dynamics.finish_nfe == 0, fractions[0]
        rung = [first[k + 1] < first[k] or (free and k == last) for k in range(last + 1)]
        stages = [Stage(n, score=rung[k], guided=k < last) for k, n in enumerate(counts)]
        return Schedule(stages, finished=finished)

    def _fractions(self, dynamics: Dynamics) -> list[list[float]]:
        levels = [dynamics.noise_level(k) for k in range(dynamics.sampler.steps)]
        return fractions_of(Rungs(self.rungs, self.kept), levels, dynamics.finish_nfe, self.brackets)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        surplus = self.surplus(propagator)
        widths = widths_of(self._fractions(propagator.dynamics), surplus)
        stages = self.schedule(propagator.dynamics, surplus).stages
        steps, particles = propagator.begin(resume)
        numbers = torch.arange(stages[0].rows) if resume is None else resume.extra
        for step in steps:
            n, score, guided, *_ = stages[step]
            particles = yield from propagator.advance(
                particles, step, numbers.tolist(), [0] * n, score=score, guided=guided
            )
            kept = _best(particles.reward, [of[step] for of in widths], [of[step + 1] for of in widths])
            particles, numbers = particles.rows(kept), numbers[kept]
            yield from propagator.save(step, particles, numbers, ancestors=None if step == 0 else kept)
        return (yield from propagator.finish(particles))


def _best(reward: Float64[Tensor, " B"], sizes: list[int], kept: list[int]) -> Int64[Tensor, " N"]:
    """Return the rows of the best of each bracket, in order, the first of equals; brackets lie one after another."""
    rows, first = [], 0
    for size, n in zip(sizes, kept, strict=True):
        of = reward[first : first + size]
        best = of.argsort(descending=True, stable=True)[:n] if n < size else torch.arange(size)
        rows.append(first + best.sort().values)
        first += size
    return torch.cat(rows)
