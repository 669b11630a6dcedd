"""Packed experiments, ``NAME.jsonl.gz``: JSON Lines in gzip, of which the first line is a head."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.bench.run.reading import MOST_LINE, parsed
from rollflow.bench.run.schema import short
from rollflow.errors import RollflowError
from rollflow.files.atomic import open_regular

SUFFIX = ".jsonl.gz"
FORM, VERSION = "rollflow-experiment", 1
MOST_PACKED = 1 << 28
"""Largest size of a packed file, and of its content, in bytes."""
MOST_LINES = 1 << 22
"""Largest number of lines in a packed file; a small file can hold very many short ones."""


class Head(NamedTuple):
    """First line of a packed experiment: the content of the files that describe it.

    Args:
        config: Content of ``experiment.json``.
        provenance: Content of ``identities.json``, if there is one.
        command: Content of ``command.txt``, if there is one.
    """

    config: dict[str, Any]
    provenance: dict[str, Any] | None
    command: str | None


def packed(head: Head, records: Sequence[bytes]) -> bytes:
    """Pack a head and records, each one line of JSON; the same content always gives the same bytes.

    Raises:
        RollflowError: If it is too large to be read again.
    """
    first = {"form": FORM, "version": VERSION, **head._asdict()}
    content = b"\n".join([json.dumps(first).encode(), *records, b""])
    if len(content) > MOST_PACKED:
        raise RollflowError(f"the experiment has {len(content):,} bytes; at most {MOST_PACKED:,} can be packed")
    if len(records) >= MOST_LINES:
        raise RollflowError(f"the experiment has {len(records):,} records; at most {MOST_LINES - 1:,} can be packed")
    file = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, file, mtime=0) as stream:
        stream.write(content)
    return file.getvalue()


def unpacked(path: Path) -> list[bytes]:
    """Return the lines of a packed file, head first, reading no more than ``MOST_PACKED`` bytes in all.

    Raises:
        RollflowError: If it cannot be read or is too large.
    """
    lines, total = list[bytes](), 0
    try:
        with open_regular(path, MOST_PACKED) as file, gzip.GzipFile(fileobj=file) as stream:
            while line := stream.readline(MOST_LINE):
                total += len(line)
                if len(line) == MOST_LINE or total > MOST_PACKED:
                    raise ValueError(f"it holds more than {MOST_PACKED:,} bytes, or a line of {MOST_LINE:,}")
                if len(lines) == MOST_LINES:
                    raise ValueError(f"it holds more than {MOST_LINES:,} lines")
                lines.append(line.rstrip(b"\n"))
        return lines
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RollflowError(
            f"'{path}' cannot be read: {error}; expected a folder of 'rollflow bench run' or a file of 'rollflow bench "
            "pack'"
        ) from None


def head_of(line: bytes, path: Path) -> Head:
    """Read the first line of a packed file.

    Raises:
        RollflowError: If it is not the head of an experiment, or has a version that this release does not know.
    """
    try:
        content = parsed(line)
    except ValueError as error:
        raise RollflowError(f"'{path}' cannot be read: line 1: {error}") from None
    if not _is_head(content):
        raise RollflowError(f"'{path}' is not a file of 'rollflow bench pack': line 1 is {short(content)}")
    if content.get("version") != VERSION:
        raise RollflowError(
            f"'{path}' has format version {short(content.get('version'))}; this release of rollflow reads version "
            f"{VERSION}; install a newer one"
        )
    config, provenance, command = (content.get(key) for key in Head._fields)
    if not isinstance(config, dict):
        raise RollflowError(f"the configuration in '{path}' cannot be used: expected an object, got {short(config)}")
    if provenance is not None and not isinstance(provenance, dict):
        raise RollflowError(f"the provenance in '{path}' cannot be used: expected an object, got {short(provenance)}")
    if command is not None and not isinstance(command, str):
        raise RollflowError(f"the command in '{path}' cannot be used: expected a string, got {short(command)}")
    return Head(config, provenance, command)


def refuse_head(line: bytes, where: str) -> None:
    """Refuse a line after the first that begins another experiment: gzip files can be joined, records not mixed.

    Raises:
        RollflowError: If the line is the head of an experiment.
    """
    if _is_head(parsed(line)):
        raise RollflowError(f"{where} begins another experiment; a file holds one: keep each in a file of its own")


def _is_head(content: Any) -> bool:
    return isinstance(content, dict) and content.get("form") == FORM
