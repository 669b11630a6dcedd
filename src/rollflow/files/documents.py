"""JSON and YAML of unknown origin, read within bounds."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rollflow.extras import requiring

MAX_BYTES = 2**24
"""Largest text file, in bytes."""

MAX_YAML = 2**21
"""Largest YAML document, in characters; YAML is slow to parse."""

MAX_DEPTH = 32
"""Deepest nesting of a YAML document."""

MAX_NODES = 200_000
"""Largest number of values in a YAML document, aliases replaced by what they stand for."""

_LONG_NUMBER = re.compile(r"[-+\d_:.,eExXoO]{100,}")


def read_text(path: Path, *, encoding: str = "utf-8", max_bytes: int = MAX_BYTES) -> str:
    """Read a regular text file.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If it is not a regular file, too large, or not in the given encoding.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"expected at most {max_bytes} bytes, got more")
    return content.decode(encoding)


def read_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: If the text is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_yaml(text: str) -> Any:
    """Parse YAML of plain values; the values behind aliases are counted before any object is created.

    Raises:
        RollflowError: If PyYAML is not installed.
        ValueError: If the text is not YAML, too long, nested too deeply, or too large once its aliases are replaced.
    """
    with requiring("a YAML file", "bench"):
        import yaml  # type: ignore[import-untyped, unused-ignore]
    if len(text) > MAX_YAML:
        raise ValueError(f"expected at most {MAX_YAML} characters of YAML, got {len(text)}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, if PyYAML was built with it
    try:
        _check_events(yaml, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (AttributeError, TypeError, KeyError, OverflowError) as error:  # a value that does not fit its tag
        raise ValueError(f"a value does not fit its tag: {error}") from error


def _check_events(yaml: Any, events: Iterable[Any]) -> None:
    """Check a document by its parse events alone; there are no more of them than characters."""
    sizes: dict[str, tuple[int, int]] = {}  # number of values and levels behind each anchor
    open_: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, values and levels of each open collection
    for event in events:
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, 1, 0))
            values, levels = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, levels = open_.pop()
            levels += 1
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise ValueError(f"the alias '*{anchor}' refers to nothing before it, or to what it is part of")
            values, levels = sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            if _LONG_NUMBER.fullmatch(event.value):
                raise ValueError(f"a number of {len(event.value)} digits is too long")
            values, levels = 1, 0
        else:
            continue
        if anchor is not None and not isinstance(event, yaml.CollectionStartEvent | yaml.AliasEvent):
            sizes[anchor] = (values, levels)
        outer, so_far, deepest = open_[-1]
        open_[-1] = (outer, so_far + values, max(deepest, levels))
        if len(open_) - 1 + levels > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if sum(number for _, number, _ in open_) > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES} values once its aliases are replaced")
