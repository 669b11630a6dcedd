"""Files that describe an experiment: its configuration, command and provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollflow.bench.run.reading import parsed, text_inside
from rollflow.bench.run.schema import short
from rollflow.errors import RollflowError

CONFIG, COMMAND, PROVENANCE = "experiment.json", "command.txt", "identities.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of an experiment.

    Raises:
        RollflowError: If there is none, or it cannot be read.
    """
    try:
        config = parsed(text_inside(folder, CONFIG))
    except FileNotFoundError:
        raise RollflowError(f"'{folder}' is not a folder of 'rollflow bench run': it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise RollflowError(f"{CONFIG} of '{folder}' cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise RollflowError(f"{CONFIG} of '{folder}' cannot be read: expected an object, got {short(config)}")
    return config


def read_command(folder: Path) -> str | None:
    """Read the command that began an experiment; None if it was begun from Python."""
    try:
        return text_inside(folder, COMMAND).strip()
    except (OSError, ValueError):
        return None


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Read the weights and versions that an experiment was begun with; None if no job has started yet.

    Raises:
        RollflowError: If the file cannot be read.
    """
    try:
        provenance = parsed(text_inside(folder, PROVENANCE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RollflowError(f"{PROVENANCE} of '{folder}' cannot be read: {error}") from error
    if not isinstance(provenance, dict) or not isinstance(provenance.get("versions"), dict):
        raise RollflowError(f"{PROVENANCE} of '{folder}' cannot be read: expected an object with 'versions'")
    return provenance


def encoded(content: dict[str, Any]) -> bytes:
    """Return content in the format of these files: indented JSON."""
    return (json.dumps(content, indent=1) + "\n").encode()


def differing(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Return the differences between two provenances, except for versions."""
    return list(differences(theirs | {"versions": None}, ours | {"versions": None}))


def differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    """Yield the differences between two JSON values, each as a phrase with its place, the old and the new value."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys([*theirs, *ours]):
            yield from differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for i, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(*pair, f"{name}[{i}]")
    elif theirs != ours:
        yield f"{name} was {short(theirs)}, is {short(ours)}"
