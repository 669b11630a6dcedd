"""Arms that differ in their budget: what they return, against it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from rollflow.bench.analysis.estimates import estimate
from rollflow.bench.analysis.results import ExperimentResults, Measure
from rollflow.bench.intervals import Interval
from rollflow.options import SamplingOptions

Arms: TypeAlias = Sequence[Mapping[str, Any]]
"""Settings of ``experiment.Arm``, as a configuration has them."""
_DEFAULTS = {one.name: one.default for one in fields(SamplingOptions)}
DYNAMICS = tuple(dict.fromkeys(("interpolant", "kernel", "grid", "guidance", "steps", "finish", *_DEFAULTS)))
"""Settings of an arm that are neither its method's nor its budget."""


def _setting(arm: Mapping[str, Any], key: str) -> Any:
    """A setting of an arm; a configuration leaves some out at their defaults."""
    return arm.get(key, _DEFAULTS[key])


def families(arms: Arms) -> dict[str, dict[int, str]]:
    """Arms of one method and the same dynamics with several budgets: by what tells them from others, budget to arm.

    Settings of a method may go with the budget, as the number of first noises does where few fit into a small one,
    unless two arms would share a budget: then only arms of the same settings are of one family.
    """
    searches = [arm for arm in arms if arm["nfe"] is not None]
    differing = [key for key in DYNAMICS if len({_setting(arm, key) for arm in searches}) > 1]
    found = {}
    for loose in _grouped(searches, lambda arm: (_plain(arm), *(_setting(arm, key) for key in DYNAMICS))):
        for some in [loose] if _one_a_budget(loose) else _grouped(loose, lambda arm: arm["method"]):
            if len(some) > 1 and _one_a_budget(some):
                told = sorted(some, key=lambda arm: int(arm["nfe"]))
                found[_name(some, differing)] = {arm["nfe"]: arm["name"] for arm in told}
    return found


def _grouped(arms: Arms, key: Callable[[Mapping[str, Any]], Hashable]) -> list[Arms]:
    found: dict[Hashable, list[Mapping[str, Any]]] = {}
    for arm in arms:
        found.setdefault(key(arm), []).append(arm)
    return [*found.values()]


def _plain(arm: Mapping[str, Any]) -> str:
    """The name of its method, without settings."""
    return str(arm["method"]).partition("(")[0].strip()


def _one_a_budget(arms: Arms) -> bool:
    return len({arm["nfe"] for arm in arms}) == len(arms)


def _name(arms: Arms, differing: Sequence[str]) -> str:
    methods = {arm["method"] for arm in arms}
    method = methods.pop() if len(methods) == 1 else _plain(arms[0])
    told = [
        str(value) if key in {"interpolant", "kernel"} else f"{key} {value}"
        for key, value in ((key, _setting(arms[0], key)) for key in differing)
        if value is not None
    ]
    return ", ".join([method, *told])


def against_budget(results: ExperimentResults, measure: Measure) -> dict[str, dict[int, Interval]]:
    """What the samples returned measure, by family and budget."""
    return {
        family: {
            nfe: found
            for nfe, arm in arms.items()
            if (found := estimate(results.cells(measure, arm), shares=measure.accuracy)) is not None
        }
        for family, arms in families(results.config["arms"]).items()
    }
