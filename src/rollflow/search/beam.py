"""Beam search with a budget for every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from rollflow.checks import real, refused, whole
from rollflow.errors import BadSetting
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares, weighted_shares
from rollflow.search.base import ScheduledSearch
from rollflow.search.cost import Schedule, Stage
from rollflow.search.design import design
from rollflow.search.profile import Profile, packaged_for, warn_of_other
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.purpose import Purpose
from rollflow.search.recombination import LEAST, recombined

LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.15)
"""Noise levels of the default curve, which needs no profile: choosing among siblings gains equally much at each."""
FALL = 0.85
"""Share of the steps after which the number of parents would have fallen to 0; it stays at 1 instead."""


@dataclass(frozen=True)
class Beam(ScheduledSearch):
    """Keep the best b_k of all P_k children of a step, whatever their parents; b_k falls to 1.

        S_0 = best b_0 of P_0 noises;    S_k = best b_k of P_k children of S_{k-1};    return the best of S_{T-1}
        b_k = max(1, b - floor(b k / (.85 T))),    P_k >= 1 in proportion to given weights,    sum_k P_k = budget

    Children are spread evenly over the parents, and the best parents have one more if they cannot be. With b = 1 and
    equal weights it is SVDD with one stream (Li et al. 2024, arXiv 2408.08252); a b_k that falls with P_k is successive
    halving (Jamieson & Talwalkar 2016, arXiv 1502.07943). The schedule, and the fall of b_k, are unpublished: the
    children of a step should be in proportion to what a choice among siblings gains there.

    That is what a profile tells (``rollflow bench profile``): with one, levels and children are chosen for the budget
    (``search.design``), in a sampler that has no steps or grid of its own. A file is read once, when a job is made;
    what was chosen is recorded as ``levels`` and ``children``.

    With ``recombine`` one of a step's children, if there are at least four, is a child of the best parent with a noise
    made of the noises and rewards of all others (Yeh, Lee & Chen 2025, arXiv 2410.05760; ``search.recombination``). It
    comes first among equals: on a plateau of the reward it is likely to lie farther from the edge.

    Args:
        parents: Number b of parents after the first step.
        recombine: Whether one child of a step recombines the noises of the others.
        levels: Linear noise levels of the steps unless the sampler has steps or a grid of its own, falling from 1. None
            takes them, and the children, from the profile; without one they are those of 1, 0.9, ..., 0.3, 0.15 that a
            design for the budget keeps, which are all from about 60 NFE.
        children: Weights > 0 of the children at ``levels``, between which they are interpolated; one number is the same
            weight everywhere, which is what None takes without a profile.
        profile: File of a profile. None takes the one in the package, if it has one of the model and the reward (else
            of one that this wraps, else of the one that is reported) by name and neither levels nor children are given.
        finalists: Largest number of the last children that are finished and scored, of which the best is returned, or
            the one that a second reward prefers (``FinalChoice``). Each takes the NFE of finishing from the children.

    Cost: all of the budget: sum_k P_k + b_{T-1} F NFE, with F the NFE of finishing one sample, and as many reward calls
    as P. With guidance one more NFE, reward call and backward pass for each parent.
    """

    parents: int = 2
    recombine: bool = True
    levels: tuple[float, ...] | None = None
    children: tuple[float, ...] | None = None
    profile: Path | None = None
    finalists: int = 1
    name = "beam"
    default_interpolant = "linear"
    default_kernel = "ddim"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("parents of beam", self.parents, at_least=1)
        whole("finalists of beam", self.finalists, at_least=1)
        levels, children = self.default_levels, self.children
        falls = all(a > b for a, b in zip(levels, (*levels[1:], 0.0), strict=True))
        if not levels or not falls or levels[0] != 1:
            raise refused("levels of beam", "numbers that fall strictly from 1 to above 0", levels)
        if children is not None and len(children) not in (1, len(levels)):
            raise refused("children of beam", f"one number, or {len(levels)}, one for each level", children)
        for place, weight in enumerate(children or ()):
            real(f"children[{place}] of beam", weight, above=0)
        if self.profile is not None:
            object.__setattr__(self, "profile", Path(self.profile))
            if self._explicit:
                raise BadSetting("beam takes levels and children from its profile; give either these or a profile")

    @property
    def _explicit(self) -> bool:
        return self.levels is not None or self.children is not None

    @property
    def default_levels(self) -> tuple[float, ...]:
        return LEVELS if self.levels is None else self.levels

    def prepared(self, purpose: Purpose) -> Beam:
        if self._explicit:
            return self
        known = packaged_for(purpose) if self.profile is None else Profile.load(self.profile)
        if known is None:
            return replace(self, levels=design((1.0,) * len(LEVELS), LEVELS, purpose.nfe).levels)
        warn_of_other(known, purpose)
        found = design(tuple(known.gains().mean(0).tolist()), known.levels, purpose.nfe)
        children = tuple(float(count) for count in found.children)
        return replace(self, profile=None, levels=(1.0, *found.levels[1:]), children=children)

    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        times = dynamics.sampler.steps
        rows = weighted_shares(times + surplus, self._weights(dynamics))
        kept = [self._kept(k, rows) for k in range(times)]
        return Schedule([Stage(p, parents=b) for p, b in zip(rows, [0, *kept], strict=False)], kept[-1])

    def _weights(self, dynamics: Dynamics) -> list[float]:
        """Weights of the children at the sampler's own noise levels."""
        levels, children = self.default_levels, self.children or (1.0,)
        weights = children * (len(levels) // len(children))
        at = [dynamics.noise_level(k) for k in range(dynamics.sampler.steps)]
        return [float(weight) for weight in np.interp(at, levels[::-1], weights[::-1])]

    def _kept(self, step: int, rows: list[int]) -> int:
        """Number b_k of particles that are kept: not more than there are children, now and at the next step."""
        falling = self.parents - math.floor(self.parents * step / (FALL * len(rows)) + 1e-9)
        if step == len(rows) - 1:
            falling = max(falling, self.finalists)
        return max(1, min(falling, *rows[step : step + 2]))

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        rows = [stage.rows for stage in self.bought(propagator).stages]
        steps, parents = propagator.begin(resume)
        for step in steps:
            if step > 0:
                parents = yield from propagator.guided(parents, step - 1)
            children, ancestors = yield from self._children(propagator, parents, step, rows[step])
            best = children.reward.argsort(descending=True, stable=True)[: self._kept(step, rows)]
            parents = children.rows(best)
            yield from propagator.save(step, parents, ancestors=None if step == 0 else ancestors[best])
        return (yield from propagator.finish(parents))

    def _children(
        self, propagator: Propagator, parents: Particles, step: int, count: int
    ) -> Asking[tuple[Particles, Int64[Tensor, " P"]]]:
        """Draw ``count`` children, at the first step of no parents, and return the parent of each with them."""
        heirs = int(count > LEAST and self._recombines(propagator, step))
        families = even_shares(count - heirs, max(1, len(parents.x)))[::-1]  # the best parents come first
        rows, draws = zip(*((i, j) for i, size in enumerate(families) for j in range(size)), strict=True)
        of, noise = torch.tensor(rows), propagator.noise.normals(step, rows, draws)
        children = yield from propagator.advance_with(parents.rows(of) if step > 0 else parents, step, noise)
        if not heirs:
            return children, of
        z = recombined(noise, children.reward, of)
        if z is None:
            z = propagator.noise.normals(step, [0], [families[0]])
        heir = yield from propagator.advance_with(parents.rows(slice(1)), step, z)
        return heir.followed_by(children), torch.cat([torch.tensor([0]), of])

    def _recombines(self, propagator: Propagator, step: int) -> bool:
        return self.recombine and step > 0 and propagator.dynamics.sampler.kernel.stochastic
