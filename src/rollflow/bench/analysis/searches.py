"""Searches of an experiment at several budgets, compared with best of N at the largest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.analysis.estimates import Paired, difference
from rollflow.bench.analysis.results import Cells, ExperimentResults, Measure
from rollflow.bench.equal_reward import needed
from rollflow.bench.intervals import Interval

Searches: TypeAlias = Mapping[str, Mapping[int, str]]
"""Arms of every search by budget, rising, by the name of the search."""
DEFAULT = "auto"
"""Search whose differences to the others are shown."""


class Reference(NamedTuple):
    """The arm whose mean is to be reached.

    Args:
        name: Name of its search.
        nfe: Its budget.
        arm: Its name.
    """

    name: str
    nfe: int
    arm: str


def searches_of(results: ExperimentResults) -> Searches:
    """Return the searches with finished jobs, whose arms are called by the search and the budget, such as ``X, 50``."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for arm, nfe in sorted(results.budgets.items(), key=lambda each: each[1]):
        name, _, budget = arm.rpartition(", ")
        if name and budget == str(nfe) and results.of(arm):
            found[name][nfe] = arm
    order = list(dict.fromkeys(arm.rpartition(", ")[0] for arm in results.budgets))
    return {name: found[name] for name in order if name in found}


def reference_of(results: ExperimentResults, searches: Searches) -> Reference | None:
    """Return best of N with its largest budget; None if no job of it has finished."""
    methods = {arm["name"]: arm["method"].partition("(")[0].strip() for arm in results.config["arms"]}
    found = [
        Reference(name, nfe, arm)
        for name, arms in searches.items()
        for nfe, arm in arms.items()
        if methods[arm] == "bon"
    ]
    return max(found, key=lambda one: one.nfe, default=None)


def measures_of(results: ExperimentResults) -> list[Measure]:
    """Return the given reward, and of every held-out one the share of perfect samples, or else the reward itself."""
    shares = {one.name: one for one in results.rewards if one.accuracy and one.kind == "held out"}
    return [results.given, *(shares.get(one.name, one) for one in results.held_out)]


def nfe_needed(
    results: ExperimentResults, measure: Measure, arms: Mapping[int, str], reference: Reference
) -> Interval | None:
    """Return the NFE that a search needs for the reference's mean, over the pairs that all its arms have.

    Args:
        results: Results of the experiment.
        measure: What is to be reached.
        arms: Arms of the search, by budget.
        reference: Arm whose mean is to be reached.
    """
    cells = {nfe: results.cells(measure, arm) for nfe, arm in arms.items()}
    target = results.cells(measure, reference.arm)
    shared = set(target).intersection(*cells.values())
    if not shared:
        return None
    return needed({nfe: _by_prompt(of, shared) for nfe, of in cells.items()}, _by_prompt(target, shared))


def _by_prompt(cells: Cells, shared: set[tuple[str, int]]) -> NDArray[np.float64]:
    """Return the means over seeds of the prompts, in an order that depends on the prompts alone."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for prompt, seed in sorted(shared):
        grouped[prompt].append(cells[prompt, seed])
    return np.array([np.mean(values) for values in grouped.values()])


def less(results: ExperimentResults, measure: Measure, arm: str, other: str) -> Paired:
    """Return an arm's measure minus that of another, over the pairs that both have."""
    return difference(results.cells(measure, arm), results.cells(measure, other))


def defaults_of(searches: Searches) -> list[str]:
    """Return the names of the default search, along every dynamics."""
    return [name for name in searches if name == DEFAULT or name.startswith(f"{DEFAULT}, ")]
