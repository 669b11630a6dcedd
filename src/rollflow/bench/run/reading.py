"""Reading of untrusted experiments: files of bounded size inside the folder, with values of known types."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rollflow.bench.run.schema import (
    ARM,
    ARM_MAY,
    CONFIG,
    CONFIG_MAY,
    DIVERSITY,
    DONE,
    DONE_MAY,
    ERROR,
    PROVENANCE,
    TRIAL,
    TRIAL_MAY,
    Kind,
    misfit,
    short,
)
from rollflow.engine.record import UnknownVersion, migrated
from rollflow.errors import RollflowError
from rollflow.files.documents import read_text

MOST_BYTES = 1 << 22
"""Largest size of a file that is read whole, in bytes."""
MOST_LINE = 1 << 24
"""Largest length of a journal's line, in bytes."""
_DEEPEST = 32
_JOB = re.compile(r"[0-9a-f]{16}(-[0-9]{1,7}-[0-9]{1,8})?")
_MEASUREMENT = re.compile(r"diversity-[0-9a-f]{16}")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a regular file in a folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a regular file, or links to a file outside the folder.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except RuntimeError:  # raised for loops of links by Python before 3.13
        raise ValueError(f"{name} is a link that leads back to itself") from None
    if not real.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is a link to a file outside the folder")
    if not stat.S_ISREG(real.stat().st_mode):
        raise ValueError(f"{name} is not a regular file")
    return real


def text_inside(folder: Path, name: str) -> str:
    """Return the text of a small file in a folder.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is too large, is not text, or lies outside the folder.
    """
    return read_text(inside(folder, name), max_bytes=MOST_BYTES)


def parsed(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: If it is not JSON, is nested too deeply, or contains a number that is not finite.
    """
    try:
        content = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _depth(content) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")


def _depth(content: Any) -> int:
    """Return how deeply lists and objects are nested, counted to just beyond ``_DEEPEST``."""
    depth, level = 0, [content]
    while level and depth <= _DEEPEST:
        nested = [one for one in level if isinstance(one, dict | list)]
        level = [part for one in nested for part in (one.values() if isinstance(one, dict) else one)]
        depth += bool(nested)
        level = level if nested else []
    return depth


def is_job(name: object) -> bool:
    """Return whether something is the id of a job, a round or a measurement, which is safe as a file name."""
    return isinstance(name, str) and bool(_JOB.fullmatch(name) or _MEASUREMENT.fullmatch(name))


def checked_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the content of ``experiment.json`` and return it.

    Raises:
        RollflowError: If it is malformed; the message says what was expected.
    """
    _check(config, CONFIG, CONFIG_MAY, where)
    for number, arm in enumerate(config["arms"]):
        _check(arm, ARM, ARM_MAY, f"arm {number + 1} in {where}")
        others = sorted(set(arm) - set(ARM) - set(ARM_MAY))
        if others:
            raise RollflowError(
                f"arm {number + 1} in {where} has unknown settings: {', '.join(map(short, others))}; this release of "
                "rollflow may be too old to read it"
            )
    names = [arm["name"] for arm in config["arms"]]
    for name in names:
        if names.count(name) > 1:
            raise RollflowError(f"arm names in {where} must be distinct; got {short(name)} twice")
    return dict(config)


def checked_provenance(identities: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the content of ``identities.json`` and return it; raises as ``checked_config``."""
    _check(identities, PROVENANCE, {}, where)
    return dict(identities)


def checked_record(line: bytes, arms: Collection[str], where: str) -> dict[str, Any] | None:
    """Read a line of a journal: the record of a finished or failed job, or of a measurement.

    Returns:
        The record, unchanged; None if its id is not that of a job or a measurement, since ids serve as file names.

    Raises:
        RollflowError: If it is malformed; the message says what was expected.
    """
    try:
        record = parsed(line)
    except ValueError as error:
        raise RollflowError(f"{where} cannot be used: {error}") from None
    if not isinstance(record, dict):
        raise RollflowError(f"{where} cannot be used: it is {short(record)}, expected an object")
    if not is_job(record.get("id")):
        return None
    if "error" in record or "diversity" in record:
        _check(record, TRIAL | (ERROR if "error" in record else DIVERSITY), TRIAL_MAY, where)
    else:
        try:
            present = migrated(record)
        except UnknownVersion as error:
            raise RollflowError(f"{where} cannot be used: {error}") from None
        _check(present, TRIAL | DONE, TRIAL_MAY | DONE_MAY, where)
    if record["arm"] not in arms:
        raise RollflowError(f"{where} belongs to the arm {short(record['arm'])}, which the experiment does not have")
    return record


def _check(content: Mapping[str, Any], needed: Mapping[str, Kind], others: Mapping[str, Kind], where: str) -> None:
    wrong = misfit(content, needed, others)
    if wrong is not None:
        raise RollflowError(f"{where} cannot be used: {wrong}")
