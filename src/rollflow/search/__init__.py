"""Searches, which decide which particles continue."""

from typing import Any

from rollflow.registry import Registry
from rollflow.search.auto import Auto
from rollflow.search.base import ScheduledSearch, Search
from rollflow.search.beam import Beam
from rollflow.search.best_of_n import BestOfN
from rollflow.search.bfs import BFS
from rollflow.search.code import CoDe
from rollflow.search.cost import Cost, Schedule, Stage
from rollflow.search.demon.demon import Demon
from rollflow.search.dfs import DFS
from rollflow.search.epsilon_greedy import EpsilonGreedy
from rollflow.search.halving import Halving
from rollflow.search.paths import SearchOverPaths
from rollflow.search.propagator import Finished, Particles, Progress, Propagator
from rollflow.search.rbf.rollover_budget import RolloverBudget
from rollflow.search.smc.smc import SMC
from rollflow.search.svdd import SVDD
from rollflow.search.threshold import VerifierThreshold
from rollflow.search.zero_order import ZeroOrder

OWN: tuple[type[Search], ...] = (
    Auto,
    Beam,
    BestOfN,
    SearchOverPaths,
    SMC,
    CoDe,
    SVDD,
    RolloverBudget,
    BFS,
    DFS,
    Demon,
    EpsilonGreedy,
    Halving,
    VerifierThreshold,
    ZeroOrder,
)
"""The library's own searches."""

SEARCHES: Registry[Search] = Registry(
    "method",
    Search,
    {search.name: search for search in OWN},
    "rollflow.searches",
)
"""Every search, by its name on the command line."""


def __getattr__(name: str) -> Any:
    if name == "Walk":  # no AttributeError, in whose place an import would raise one that says nothing
        raise ImportError("rollflow.search.Walk of earlier releases is now rollflow.search.Propagator")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "BFS",
    "DFS",
    "SEARCHES",
    "SMC",
    "SVDD",
    "Auto",
    "Beam",
    "BestOfN",
    "CoDe",
    "Cost",
    "Demon",
    "EpsilonGreedy",
    "Finished",
    "Halving",
    "Particles",
    "Progress",
    "Propagator",
    "RolloverBudget",
    "Schedule",
    "ScheduledSearch",
    "Search",
    "SearchOverPaths",
    "Stage",
    "VerifierThreshold",
    "ZeroOrder",
]
