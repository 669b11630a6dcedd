"""Rewards of arms that differ only in their budget."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from rollflow.bench.analysis.estimates import estimate
from rollflow.bench.analysis.results import ExperimentResults, Measure
from rollflow.bench.intervals import Interval
from rollflow.options import SamplingOptions

Arms: TypeAlias = Sequence[Mapping[str, Any]]
"""Settings of arms, as in an experiment's configuration."""
_DEFAULTS = {one.name: one.default for one in fields(SamplingOptions)}
DYNAMICS = tuple(dict.fromkeys(("interpolant", "kernel", "grid", "guidance", "steps", "finish", *_DEFAULTS)))
"""Settings of an arm other than its name, method and budget."""


def _setting(arm: Mapping[str, Any], key: str) -> Any:
    """Return a setting of an arm; a configuration omits some at their defaults."""
    return arm.get(key, _DEFAULTS[key])


def families(arms: Arms) -> dict[str, dict[int, str]]:
    """Group the arms that have the same method and dynamics but different budgets.

    The settings of the method may depend on the budget: small budgets may allow fewer initial noises, for example. If
    two arms would then share a budget, only arms with equal settings form a family.

    Returns:
        Arms by budget, for every family by its name.
    """
    searches = [arm for arm in arms if arm["nfe"] is not None]
    differing = [key for key in DYNAMICS if len({_setting(arm, key) for arm in searches}) > 1]
    by_name = {}
    for group in _grouped(searches, lambda arm: (_plain(arm), *(_setting(arm, key) for key in DYNAMICS))):
        for family in [group] if _distinct_budgets(group) else _grouped(group, lambda arm: arm["method"]):
            if len(family) > 1 and _distinct_budgets(family):
                rising = sorted(family, key=lambda arm: int(arm["nfe"]))
                by_name[_name(family, differing)] = {arm["nfe"]: arm["name"] for arm in rising}
    return by_name


def _grouped(arms: Arms, key: Callable[[Mapping[str, Any]], Hashable]) -> list[Arms]:
    groups: dict[Hashable, list[Mapping[str, Any]]] = {}
    for arm in arms:
        groups.setdefault(key(arm), []).append(arm)
    return [*groups.values()]


def _plain(arm: Mapping[str, Any]) -> str:
    """Return the name of an arm's method without settings."""
    return str(arm["method"]).partition("(")[0].strip()


def _distinct_budgets(arms: Arms) -> bool:
    return len({arm["nfe"] for arm in arms}) == len(arms)


def _name(arms: Arms, differing: Sequence[str]) -> str:
    methods = {arm["method"] for arm in arms}
    method = methods.pop() if len(methods) == 1 else _plain(arms[0])
    settings = [
        str(value) if key in {"interpolant", "kernel"} else f"{key} {value}"
        for key, value in ((key, _setting(arms[0], key)) for key in differing)
        if value is not None
    ]
    return ", ".join([method, *settings])


def against_budget(results: ExperimentResults, measure: Measure) -> dict[str, dict[int, Interval]]:
    """Return the mean of a measure over the returned samples, by family and budget."""
    return {
        family: {
            nfe: mean
            for nfe, arm in arms.items()
            if (mean := estimate(results.cells(measure, arm), shares=measure.accuracy)) is not None
        }
        for family, arms in families(results.config["arms"]).items()
    }
