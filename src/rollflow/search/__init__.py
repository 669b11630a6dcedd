"""Searches, which decide which particles continue."""

from rollflow.registry import Registry
from rollflow.search.base import ScheduledSearch, Search
from rollflow.search.best_of_n import BestOfN
from rollflow.search.code import CoDe
from rollflow.search.cost import Cost, Schedule, Stage
from rollflow.search.paths import SearchOverPaths
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.rbf.rollover_budget import RolloverBudget
from rollflow.search.smc.smc import SMC
from rollflow.search.svdd import SVDD

SEARCHES: Registry[Search] = Registry(
    "method",
    Search,
    {search.name: search for search in (BestOfN, SearchOverPaths, SMC, CoDe, SVDD, RolloverBudget)},
    "rollflow.searches",
)
"""Every search, by its name on the command line."""

__all__ = [
    "SEARCHES",
    "SMC",
    "SVDD",
    "BestOfN",
    "CoDe",
    "Cost",
    "Finished",
    "Particles",
    "Progress",
    "Propagator",
    "RolloverBudget",
    "Schedule",
    "ScheduledSearch",
    "Search",
    "SearchOverPaths",
    "Stage",
]
