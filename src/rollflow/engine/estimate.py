"""The estimated cost of a job, and its default sampler."""

from __future__ import annotations

import warnings

from rollflow.checks import MOST_NFE, instance, whole
from rollflow.defaults import DEFAULT_LOOKAHEAD, DEFAULT_STEPS
from rollflow.dynamics.grids import Levels
from rollflow.dynamics.interpolants import INTERPOLANTS, Interpolant
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.engine.meter import Spending
from rollflow.errors import RollflowWarning, blamed
from rollflow.models.base import ModelSpec
from rollflow.sampler import Dynamics, Sampler
from rollflow.search.base import Search
from rollflow.search.cost import Cost


def estimate_cost(model: ModelSpec, search: Search, sampler: Sampler, nfe: int) -> Spending:
    """Estimate what a job will spend, without weights (the dry run), including the decode of the returned sample.

    A model that does not know its network rows before it is loaded is assumed to need one per NFE, the smallest number.

    Raises:
        BudgetTooSmall: If the search cannot run in ``nfe``.
    """
    whole("nfe", nfe, at_most=MOST_NFE)
    dynamics = sampler.bind(model)
    with blamed(f"the cost of method '{search.name}' cannot be determined"):
        cost = instance(f"the cost of method '{search.name}'", search.cost(dynamics, nfe), Cost)
        warn_of_budget(search, dynamics, nfe)
    rows = cost.nfe * (model.rows_per_nfe or 1)
    return Spending(cost.nfe, rows, cost.reward_calls, cost.decodes + 1, cost.backward_passes)


def default_sampler(model: ModelSpec, search: Search, interpolant: Interpolant | None = None) -> Sampler:
    """Return the default sampler of a job.

    It follows the interpolant and the kernel of the search (``Search.default_dynamics``), at its noise levels; without
    such it has ``DEFAULT_STEPS`` steps.

    Args:
        model: Model that is sampled.
        search: Search that samples.
        interpolant: Interpolant to sample along in place of the default.
    """
    default = search.default_dynamics(few_step=model.few_step)
    path = INTERPOLANTS.make(default.interpolant) if interpolant is None else interpolant
    kernel = KERNELS.make(default.kernel)
    levels = search.default_levels
    grid, steps = (None, DEFAULT_STEPS) if levels is None else (Levels(levels, path), len(levels))
    return Sampler(path, kernel, grid, steps, LOOKAHEADS.make(DEFAULT_LOOKAHEAD))


def warn_of_budget(search: Search, dynamics: Dynamics, nfe: int) -> None:
    """Warn of a budget that works but is too small to be useful."""
    doubt = search.doubt(dynamics, nfe)
    if doubt is not None:
        warnings.warn(doubt, RollflowWarning, stacklevel=1)
