"""The default search: a beam that is made for the model, the reward and the budget, or best of N."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rollflow.dynamics.kernels import Kernel
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.base import Search
from rollflow.search.beam import Beam
from rollflow.search.best_of_n import BestOfN
from rollflow.search.cost import Cost
from rollflow.search.profile import packaged_for
from rollflow.search.propagator import Finished, Progress, Propagator
from rollflow.search.purpose import Purpose

FINALISTS = 4
"""Largest number of finished samples that a final choice is given."""


@dataclass(frozen=True)
class Auto(Search):
    """Choose a search, its noise levels and its children for the model, the reward and the budget.

    It is a beam (after Li et al. 2024, arXiv 2408.08252) with recombination (Yeh, Lee & Chen 2025, arXiv 2410.05760).
    Its schedule follows the profile of the model and the reward if there is one, otherwise the beam's default curve,
    which needs none, with fewer noise levels where a budget is small. With a kernel that draws no noise, whose children
    would all be the same, it is best of N. If a second reward chooses among the last candidates, up to four of them are
    finished, since there would be nothing to choose where finishing costs NFE.

    Args:
        profile: File of a profile (``rollflow bench profile``); None takes the one in the package, if it has one.

    Cost: that of the search it chooses: all of the budget for a beam.
    """

    profile: Path | None = None
    name = "auto"
    default_interpolant = "linear"
    default_kernel = "ddim"

    def prepared(self, purpose: Purpose) -> Search:
        return self._search(purpose.kernel, min(purpose.shortlist, FINALISTS)).prepared(purpose)

    def explained(self, purpose: Purpose) -> tuple[str, str]:
        chosen, name, known = self.prepared(purpose), purpose.model_name or "the model", packaged_for(purpose)
        if not isinstance(chosen, Beam):
            same = "draws no noise, so that children would be the same"
            return f"auto: {chosen.name}", f"since kernel {purpose.kernel} {same}"
        levels, parents = chosen.default_levels, f"{chosen.parents} parents falling to 1"
        what = f"auto: beam at {len(levels)} noise levels ({', '.join(f'{level:g}' for level in levels)}), {parents}"
        if chosen.finalists > 1:
            what += f", up to {chosen.finalists} finalists to choose among"
        if self.profile is not None:
            return what, f"by the profile '{self.profile}'"
        if known is not None:
            return what, f"by the profile of '{known.reward}' on {name} in the package"
        none = f"there is no profile of '{purpose.rewards[0]}' on {name} ('rollflow bench profile')"
        return what, f"by the default curve: {none}"

    def _search(self, kernel: Kernel | None, finalists: int = 1) -> Search:
        return Beam(profile=self.profile, finalists=finalists) if kernel is None or kernel.stochastic else BestOfN()

    def price(self, dynamics: Dynamics, surplus: int) -> Cost:
        return self._search(dynamics.sampler.kernel).price(dynamics, surplus)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        return (yield from self._search(propagator.dynamics.sampler.kernel).population(propagator, resume))
