"""How the release of arXiv 2503.19385 runs its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from rollflow.defaults import DEFAULT_KERNEL, DEFAULT_STEPS
from rollflow.dynamics.grids import Arc, Uniform
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.dynamics.kernels import KERNELS
from rollflow.errors import BadSetting
from rollflow.sampler import Sampler
from rollflow.search.base import Search
from rollflow.search.best_of_n import BestOfN
from rollflow.search.code import CoDe
from rollflow.search.keeping import AllCopies
from rollflow.search.paths import SearchOverPaths
from rollflow.search.rbf.quota import PublishedQuota
from rollflow.search.rbf.rollover_budget import RolloverBudget
from rollflow.search.smc.smc import SMC
from rollflow.search.svdd import SVDD


class Published(NamedTuple):
    """How the release runs one method.

    Args:
        settings: Settings that differ from our defaults.
        interpolant: Interpolant to sample along.
        kernel: Name of the kernel.
    """

    settings: Mapping[str, Any]
    interpolant: Interpolant
    kernel: str


_VP_SDE = VP(), DEFAULT_KERNEL
_LINEAR_ODE = Linear(), "ode"
PUBLISHED: dict[type[Search], Published] = {
    BestOfN: Published({}, *_LINEAR_ODE),
    SearchOverPaths: Published({"keep": AllCopies()}, *_LINEAR_ODE),
    SMC: Published({}, *_VP_SDE),
    CoDe: Published({"noises": False}, *_VP_SDE),
    SVDD: Published({"noises": False}, *_VP_SDE),
    RolloverBudget: Published({"quota": PublishedQuota()}, *_VP_SDE),
}
"""The methods of Kim et al. 2025, arXiv 2503.19385, whose other settings are our defaults."""


def as_published(search: Search) -> Search:
    """Return a search with the published values of all settings that have their defaults.

    Raises:
        BadSetting: If the release has no such method.
    """
    defaults = {one.name: one.default for one in fields(search)}  # type: ignore[arg-type]
    settings = _published(search).settings.items()
    return replace(search, **{name: value for name, value in settings if getattr(search, name) == defaults[name]})  # type: ignore[type-var]


def published_sampler(search: Search, interpolant: Interpolant | None = None) -> Sampler:
    """Return the sampler of a published method: 10 steps, none of them to finish the sample, for any model.

    Args:
        search: Search that samples.
        interpolant: Interpolant to sample along in place of the published one. The grid follows it.

    Raises:
        BadSetting: If the release has no such method.
    """
    published = _published(search)
    path = published.interpolant if interpolant is None else interpolant
    grid = Arc() if isinstance(path, VP) else Uniform()
    return Sampler(path, KERNELS.make(published.kernel), grid, DEFAULT_STEPS, finish=False)


def _published(search: Search) -> Published:
    if type(search) not in PUBLISHED:
        known = ", ".join(kind.name for kind in PUBLISHED)
        raise BadSetting(
            f"the release of arXiv 2503.19385 has no method '{search.name}', so that it cannot run as published; "
            f"choose one of {known}"
        )
    return PUBLISHED[type(search)]
