"""Files of an experiment folder, which may come from anyone: of bounded size, inside the folder, and of known types."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollflow.errors import RollflowError
from rollflow.files.documents import read_text

MOST_BYTES = 1 << 22
"""Of a file that is read whole."""
MOST_LINE = 1 << 24
"""Bytes of a line of a journal."""
MOST_JOURNALS = 1 << 30
"""Bytes of all journals of a folder."""
MOST_ARMS = 256
MOST_ROWS = 1 << 12
"""Rows of a call of the model."""
_DEEPEST = 32
_JOB = re.compile(r"[0-9a-f]{16}")
_MEASUREMENT = re.compile(r"diversity-[0-9a-f]{16}")


def inside(folder: Path, name: str) -> Path:
    """The path of a regular file of a folder.

    Raises:
        FileNotFoundError: If there is none of that name.
        ValueError: If it is not a regular file, or a link to a file outside the folder.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except RuntimeError:  # as Python before 3.13 says it
        raise ValueError(f"{name} is a link that leads to itself") from None
    if not real.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is a link to a file outside the folder")
    if not stat.S_ISREG(real.stat().st_mode):
        raise ValueError(f"{name} is not a regular file")
    return real


def text_inside(folder: Path, name: str) -> str:
    """The text of a small file of a folder.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is too large, is no text, or lies outside the folder.
    """
    return read_text(inside(folder, name), max_bytes=MOST_BYTES)


def check_size(folder: Path) -> None:
    """Refuse journals that are too large to be kept in memory.

    Raises:
        RollflowError: Then.
    """
    total = sum(path.stat().st_size for path in folder.glob("journal-*.jsonl"))
    if total > MOST_JOURNALS:
        raise RollflowError(f"the journals of '{folder}' have {total} bytes; at most {MOST_JOURNALS} are read")


def parsed(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: If it is not JSON, is nested too deep, or has a number that is not finite.
    """
    try:
        content = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if _depth(content) > _DEEPEST:
        raise ValueError("it is nested too deep")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _depth(content: Any) -> int:
    """How deep lists and objects are nested; no deeper than is asked for."""
    depth, level = 0, [content]
    while level and depth <= _DEEPEST:
        nested = [one for one in level if isinstance(one, dict | list)]
        level = [part for one in nested for part in (one.values() if isinstance(one, dict) else one)]
        depth += bool(nested)
        level = level if nested else []
    return depth


@dataclass(frozen=True)
class Kind:
    """What a value of JSON must be.

    Args:
        says: In words.
        fits: Whether a value is that.
    """

    says: str
    fits: Callable[[Any], bool]


def _whole(low: int = 0, high: int = 2**63 - 1) -> Kind:
    return Kind(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def _list_of(kind: Kind, least: int = 0, most: int = 1 << 20) -> Kind:
    return Kind(
        f"a list of {kind.says}",
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(kind.fits, value)),
    )


def _by_name(kind: Kind) -> Kind:
    return Kind(
        f"by name {kind.says}",
        lambda value: isinstance(value, dict) and all(kind.fits(part) for part in value.values()),
    )


def _maybe(kind: Kind) -> Kind:
    return Kind(f"{kind.says}, or null", lambda value: value is None or kind.fits(value))


def _object(needed: Mapping[str, Kind], others: Mapping[str, Kind] | None = None) -> Kind:
    def fits(value: Any) -> bool:
        return isinstance(value, dict) and _misfit(value, needed, others or {}) is None

    return Kind(f"an object with {', '.join(needed)}", fits)


_MOST = 1e100  # whose squares are still numbers
ANY = Kind("anything", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str))
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
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
        and _misfit(
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
    """Whether the parents of each step are rows of the step before; None is that each row goes on."""
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
    "steps": _whole(1),
    "finish": _maybe(TRUTH),
}
CONFIG: dict[str, Kind] = {
    "name": TEXT,
    "model": TEXT,
    "reward": TEXT,
    "held_out": _list_of(TEXT, most=MOST_ARMS),
    "arms": _list_of(Kind("arms", lambda value: isinstance(value, dict)), least=1, most=MOST_ARMS),
    "seeds": _whole(1),
    "max_rows": _whole(1, MOST_ROWS),
    "suite": _object({"name": TEXT, "version": TEXT, "prompts": _whole(1)}, {"sha256": TEXT}),
}
CONFIG_MAY: dict[str, Kind] = {
    "pipeline": Kind("settings of a pipeline", lambda value: isinstance(value, dict)),
    "diversity": _maybe(_object({"trajectories": _whole(2), "distance": TEXT})),
}
PROVENANCE: dict[str, Kind] = {
    "model": TEXT,
    "reward": TEXT,
    "held_out": _list_of(TEXT),
    "versions": _by_name(TEXT),
}
JOB: dict[str, Kind] = {
    "arm": TEXT,
    "prompt": TEXT,
    "ask": _maybe(_by_name(_whole())),
    "category": TEXT,
    "place": _whole(),
    "seed": _whole(),
}
ERROR = {"error": TEXT}
DIVERSITY = {"diversity": NUMBER}
DONE: dict[str, Kind] = {
    "reward": NUMBER,
    "parts": _by_name(_maybe(NUMBER)),
    "held_out": _by_name(_maybe(NUMBER)),
    "nfe": _whole(),
    "network_rows": _whole(),
    "reward_calls": _whole(),
    "backward_passes": _whole(),
    "seconds": AMOUNT,
    "trace": _list_of(POINT, least=1),
    "diagnostics": _list_of(FIGURES),
    "sha256": TEXT,
    "versions": _by_name(TEXT),
    "quota": _list_of(_list_of(_whole())),
}
DONE_MAY: dict[str, Kind] = {
    "ancestors": PARENTS,
    "device": _maybe(TEXT),
    "missing": _by_name(TEXT),
    "resumed": TRUTH,
    "threads": _whole(1, 1 << 10),
}


def is_job(name: object) -> bool:
    """Whether something is the id of a job or of a measurement; such an id is safe as the name of a file."""
    return isinstance(name, str) and bool(_JOB.fullmatch(name) or _MEASUREMENT.fullmatch(name))


def checked_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The content of ``experiment.json``, if it is such.

    Raises:
        RollflowError: If it is not, with what was expected; so do the others.
    """
    _check(config, CONFIG, CONFIG_MAY, where)
    for number, arm in enumerate(config["arms"]):
        _check(arm, ARM, {}, f"arm {number + 1} in {where}")
        if set(arm) != set(ARM):
            raise RollflowError(f"arm {number + 1} in {where} has {', '.join(sorted(set(arm) - set(ARM)))}, not known")
    names = [arm["name"] for arm in config["arms"]]
    for name in names:
        if names.count(name) > 1:
            raise RollflowError(f"{where} has two arms of the name {_short(name)}; arm names must be distinct")
    return dict(config)


def checked_provenance(identities: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The content of ``identities.json``, if it is such."""
    _check(identities, PROVENANCE, {}, where)
    return dict(identities)


def checked_record(line: bytes, arms: Collection[str], where: str) -> dict[str, Any] | None:
    """A line of a journal: of a job that is done or has failed, or of a measurement.

    Returns:
        None if its id is not one of this package: such a line is left out, since ids are names of files.
    """
    try:
        record = parsed(line)
    except ValueError as error:
        raise RollflowError(f"{where} cannot be used: {error}") from None
    if not isinstance(record, dict):
        raise RollflowError(f"{where} cannot be used: it is {_short(record)}, expected an object")
    if not is_job(record.get("id")):
        return None
    needed = ERROR if "error" in record else DIVERSITY if "diversity" in record else DONE
    _check(record, JOB | needed, DONE_MAY, where)
    if record["arm"] not in arms:
        raise RollflowError(f"{where} is of the arm {_short(record['arm'])}, which the experiment does not have")
    return record


def _check(content: Mapping[str, Any], needed: Mapping[str, Kind], others: Mapping[str, Kind], where: str) -> None:
    wrong = _misfit(content, needed, others)
    if wrong is not None:
        raise RollflowError(f"{where} cannot be used: {wrong}")


def _misfit(content: Mapping[str, Any], needed: Mapping[str, Kind], others: Mapping[str, Kind]) -> str | None:
    """What is wrong with an object; None if nothing is."""
    for key in needed:
        if key not in content:
            return f"it has no '{key}'"
    for key, kind in {**others, **needed}.items():
        if key in content and not kind.fits(content[key]):
            return f"'{key}' is {_short(content[key])}, expected {kind.says}"
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
