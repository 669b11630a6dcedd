"""Siblings: a search that chooses nothing, and records the rewards of siblings from where they part to the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rollflow.requests import Asking
from rollflow.search.base import Search
from rollflow.search.propagator import Finished, Progress, Propagator


@dataclass(frozen=True)
class Siblings(Search):
    """Follow n m trajectories from noise to data, and at every later time m more children of each of the first n.

    The rewards of all clean estimates are the diagnostic ``rewards``, a (T, n, m, T + 1) float64 tensor: the entry of
    one prompt in a ``search.profile.Profile``. It saves no state, since a run that stops in a prompt repeats that
    prompt. Unpublished.

    Cost: n m (T (T + 1) / 2 + T F) NFE, with T the sampler's steps and F the NFE of finishing.

    Args:
        parents: Number n of parents.
        siblings: Number m of siblings of each.
    """

    parents: int
    siblings: int
    name = "siblings"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        times, family = propagator.dynamics.sampler.steps, self.parents * self.siblings
        of = torch.arange(self.parents).repeat_interleave(self.siblings)
        rewards = torch.full((times, family, times + 1), torch.nan, dtype=torch.float64)
        alive = yield from propagator.start(range(family), [0] * family)
        for step in range(times):
            if step > 0:
                count = (step + 1) * family
                parents = alive.followed_by(alive.rows(of))
                alive = yield from propagator.advance(parents, step, range(count), [0] * count)
            rewards[: step + 1, :, step] = alive.reward.view(step + 1, family)
        ends = yield from propagator.denoise(alive)
        rewards[:, :, times] = ends.reward.view(times, family)
        shape = (times, self.parents, self.siblings, times + 1)
        return propagator.returned(ends, diagnostics={"rewards": rewards.view(shape)})
