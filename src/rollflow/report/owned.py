"""Which files beside a report are its own, so that writing it again replaces nothing of the user's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from rollflow.errors import BadSetting
from rollflow.files.atomic import open_regular

_SEAL = re.compile(rb"\n<!-- rollflow (\{[^<>]*\}) -->\n\Z")
_MOST = 1 << 30


def with_seal(folder: Path, name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a report, whose page ends with the digests of all of them.

    The digests of an earlier report's files are kept beside those of the new ones, since a kill may leave some of them.

    Args:
        folder: Where they go.
        name: Of the page.
        files: By name, the page among them.

    Raises:
        BadSetting: If a file of one of the names is there that no report wrote, or that was changed since.
    """
    earlier = _sealed(folder / name)
    digests: dict[str, list[str]] = {}
    foreign = []
    for one, content in files.items():
        digests[one] = [hashlib.sha256(content).hexdigest()]
        if os.path.lexists(folder / one):
            there = "a link" if (folder / one).is_symlink() else _digest(folder / one, page=one == name)
            if there not in earlier.get(one, ()):
                foreign.append(one)
            digests[one].append(there)
    if foreign:
        raise BadSetting(
            f"'{folder}' holds {', '.join(foreign)}, which rollflow did not write, or which changed since (earlier "
            "releases did not mark their reports); move that away, or choose another --out"
        )
    told = json.dumps(digests).replace("<", "\\u003c").replace(">", "\\u003e")
    return {**files, name: files[name] + f"\n<!-- rollflow {told} -->\n".encode()}


def _sealed(page: Path) -> dict[str, set[str]]:
    """The digests at the end of a page; none if it has no such end."""
    try:
        found = _SEAL.search(_content(page))
        told = json.loads(found[1]) if found else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return {
        name: {d for d in one if isinstance(d, str) and len(d) == 64}
        for name, one in told.items()
        if isinstance(one, list)
    }


def _digest(path: Path, *, page: bool) -> str:
    """Of a file, a page without its seal."""
    try:
        content = _content(path)
    except (OSError, ValueError):
        return "unreadable"
    if page:
        content = _SEAL.sub(b"", content)
    return hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    with open_regular(path, _MOST) as file:
        return file.read()
