"""Types of the values in an experiment's files, for checking files of unknown origin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rollflow.options import SamplingOptions

MOST_ARMS = 256
MOST_ROWS = 1 << 12
"""Largest number of rows in a call of the model."""


@dataclass(frozen=True)
class Kind:
    """Type of a JSON value.

    Args:
        says: Description for error messages.
        fits: Function that tells whether a value is of this type.
    """

    says: str
    fits: Callable[[Any], bool]


def _whole(low: int = 0, high: int = 2**63 - 1) -> Kind:
    return Kind(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _list_of(kind: Kind, least: int = 0, most: int = 1 << 20) -> Kind:
    return Kind(
        f"a list, each item {kind.says}",
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(kind.fits, value)),
    )


def _by_name(kind: Kind) -> Kind:
    return Kind(
        f"an object whose values are each {kind.says}",
        lambda value: isinstance(value, dict) and all(kind.fits(part) for part in value.values()),
    )


def _maybe(kind: Kind) -> Kind:
    return Kind(f"{kind.says}, or null", lambda value: value is None or kind.fits(value))


def _object(needed: Mapping[str, Kind], others: Mapping[str, Kind] | None = None) -> Kind:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and misfit(value, needed, others or {}) is None

    return Kind(f"an object with {', '.join(needed)}", fits)


_MOST = 1e100  # its square does not overflow
ANY = Kind("anything", lambda value: True)
TEXT = Kind("a string", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
CHOICE_OR_TRUTH = Kind("a string, true or false", lambda value: isinstance(value, str | bool))
NUMBER = Kind("a number", lambda value: type(value) in (int, float) and abs(value) <= _MOST)
AMOUNT = Kind("a number of 0 or more", lambda value: NUMBER.fits(value) and 0 <= value <= 1e12)
POINT = Kind(
    "an NFE and a reward",
    lambda value: isinstance(value, list) and len(value) == 2 and _whole().fits(value[0]) and NUMBER.fits(value[1]),
)
PARENTS = Kind(
    "parents of particles", lambda value: isinstance(value, list) and all(_has_parents(one) for one in value)
)
FIGURES = Kind(
    "figures of a search",
    lambda value: (
        isinstance(value, dict)
        and misfit(
            value,
            {},
            {
                "log_z": _maybe(NUMBER),
                "ess": _maybe(_list_of(NUMBER)),
                "resamplings": _maybe(NUMBER),
                "ancestors": _maybe(NUMBER),
            },
        )
        is None
    ),
)


def _has_parents(steps: Any) -> bool:
    """Return whether the parents of each step are rows of the step before; None means that each row continues."""
    if not _list_of(_maybe(_list_of(_whole(0, 1 << 20)))).fits(steps):
        return False
    count = max((max(step) + 1 for step in steps if step), default=0)
    for step in steps[1:]:
        if step is not None:
            if any(parent >= count for parent in step):
                return False
            count = len(step)
    return True


ARM: dict[str, Kind] = {
    "name": TEXT,
    "method": TEXT,
    "nfe": _maybe(_whole(1)),
    "interpolant": _maybe(TEXT),
    "kernel": _maybe(TEXT),
    "grid": _maybe(TEXT),
    "guidance": _maybe(TEXT),
    "steps": _maybe(_whole(1)),
    "finish": _maybe(TRUTH),
}
ARM_MAY: dict[str, Kind] = {
    one.name: Kind("an option", lambda value: value is None or isinstance(value, str | bool | int))
    for one in fields(SamplingOptions)
    if one.name not in ARM
} | {"surrogate": CHOICE_OR_TRUTH, "choose_by": _maybe(TEXT), "shortlist": _whole(1), "pool_until": _maybe(NUMBER)}
"""Options added after the first release, omitted at their defaults."""
CONFIG: dict[str, Kind] = {
    "name": TEXT,
    "model": TEXT,
    "reward": TEXT,
    "held_out": _list_of(TEXT, most=MOST_ARMS),
    "arms": _list_of(Kind("an arm", lambda value: isinstance(value, dict)), least=1, most=MOST_ARMS),
    "seeds": _whole(1),
    "max_rows": _whole(1, MOST_ROWS),
    "suite": _object({"name": TEXT, "version": TEXT, "prompts": _whole(1)}, {"sha256": TEXT}),
}
CONFIG_MAY: dict[str, Kind] = {
    "pipeline": Kind("settings of a pipeline", lambda value: isinstance(value, dict)),
    "diversity": _maybe(_object({"trajectories": _whole(2), "distance": TEXT})),
    "first_seed": _whole(),
    "pool": _maybe(_object({"nfe": _maybe(_whole(1)), "until": _maybe(NUMBER), "rounds": _list_of(NUMBER, least=1)})),
}
PROVENANCE: dict[str, Kind] = {
    "model": TEXT,
    "reward": TEXT,
    "held_out": _list_of(TEXT),
    "versions": _by_name(TEXT),
}
TRIAL: dict[str, Kind] = {"arm": TEXT, "prompt": TEXT, "seed": _whole()}
TRIAL_MAY: dict[str, Kind] = {"ask": _maybe(_by_name(_whole())), "category": TEXT, "place": _whole(), "noise": _whole()}
ERROR = {"error": TEXT}
DIVERSITY = {"diversity": NUMBER}
DONE: dict[str, Kind] = {
    "reward": NUMBER,
    "nfe": _whole(),
    "network_rows": _whole(),
    "reward_calls": _whole(),
    "backward_passes": _whole(),
    "seconds": AMOUNT,
    "trace": _list_of(POINT, least=1),
    "sha256": TEXT,
    "threads": _whole(1, 1 << 10),
    "versions": _by_name(TEXT),
}
DONE_MAY: dict[str, Kind] = {
    "plan": OBJECT,
    "surrogate": NUMBER,
    "chosen": NUMBER,
    "parts": _by_name(_maybe(NUMBER)),
    "held_out": _by_name(_maybe(NUMBER)),
    "missing": _by_name(TEXT),
    "ineligible": _by_name(_whole()),
    "warnings": _list_of(TEXT),
    "decodes": _whole(),
    "noise_level": NUMBER,
    "origin": _maybe(_object({"population": _whole(), "row": _maybe(_whole())})),
    "diagnostics": _list_of(FIGURES),
    "device": _maybe(TEXT),
    "quota": _list_of(_list_of(_whole())),
    "ancestors": _maybe(PARENTS),
    "resumed": TRUTH,
    "quota_steps": _maybe(_list_of(_list_of(_whole()))),
    "rounds": _list_of(_object({"seed": _whole(), "budget": _whole(1), "nfe": _whole(), "reward": _maybe(NUMBER)})),
    "round": _whole(0, 1 << 20),
}
"""Fields of ``JobRecord`` that may be missing, since they are written only if they differ from their defaults.

The record of a round of a pooled job also has its number, ``round``.
"""


def misfit(content: Mapping[str, Any], needed: Mapping[str, Kind], others: Mapping[str, Kind]) -> str | None:
    """Return a description of what is wrong with an object; None if nothing is."""
    for key in needed:
        if key not in content:
            return f"it has no '{key}'"
    for key, kind in {**others, **needed}.items():
        if key in content and not kind.fits(content[key]):
            return f"'{key}' is {short(content[key])}, expected {kind.says}"
    return None


def short(value: Any) -> str:
    """Return the JSON of a value, shortened to 80 characters."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
