"""Loading of suites of prompts: shipped with the package, published, or from a user's file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rollflow.bench.suites.published import PUBLISHED, text_of
from rollflow.bench.suites.suite import Item, Suite
from rollflow.errors import RollflowError, unknown
from rollflow.files.atomic import write
from rollflow.files.documents import read_json, read_yaml
from rollflow.prompts import Prompt

__all__ = ["DATA", "PUBLISHED", "Item", "Suite", "lines_of", "load", "save", "shipped"]

DATA = Path(__file__).parent / "data"


def load(name: str) -> Suite:
    """Load a suite by its name or from a file; duplicate entries are dropped, since their jobs are the same.

    Args:
        name: Name in ``shipped()``; name in ``PUBLISHED``, fetched from the hub or read from a local copy as in
            ``drawbench=copy.csv``; or path of a file: YAML, JSON or JSONL whose entries have a ``prompt`` and
            optionally a ``category`` and an ``ask``, or text with one prompt per line.

    Raises:
        UnknownName: If there is no such suite.
        RollflowError: If it cannot be fetched or read.
    """
    published, _, copy = name.partition("=")
    if published in PUBLISHED:
        return _checked(PUBLISHED[published].suite(published, Path(copy) if copy else None), name)
    if name in shipped():
        return _of_file(DATA / f"{name}.jsonl")
    path = Path(name)
    if path.is_file() or (path.suffix and not copy):
        return _of_file(path)
    raise unknown("suite", published, [*shipped(), *PUBLISHED])


def shipped() -> list[str]:
    """Return the names of the suites in the package."""
    return sorted(path.stem for path in DATA.glob("*.jsonl"))


def lines_of(suite: Suite) -> str:
    """Return a suite as JSONL: a line with its name and version, then one line per prompt."""
    lines: list[dict[str, Any]] = [{"suite": suite.name, "version": suite.version}]
    for item in suite.items:
        line: dict[str, Any] = {"prompt": item.prompt}
        if item.category:
            line["category"] = item.category
        if item.ask is not None:
            line["ask"] = dict(item.ask)
        lines.append(line)
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n"


def save(suite: Suite, path: Path) -> None:
    """Write a suite to a JSONL file, atomically."""
    write(path.parent, {path.name: lines_of(suite).encode()})


def _of_file(path: Path) -> Suite:
    text = text_of(path)
    try:
        match path.suffix:
            case ".yaml" | ".yml":
                head, entries = _of_document(read_yaml(text))
            case ".json":
                head, entries = _of_document(read_json(text))
            case ".jsonl":
                head, entries = _of_lines(text)
            case _:
                head, entries = {}, [line.strip() for line in text.splitlines() if line.strip()]
        items = tuple(_item(entry) for entry in entries)
    except (ValueError, RollflowError) as error:
        line = " ".join(str(error).split())
        raise RollflowError(
            f"the suite '{path}' cannot be read: {line:.500}; expected entries that each have a prompt"
        ) from error
    return _checked(Suite(str(head.get("suite", path.stem)), str(head.get("version", "")), items), str(path))


def _of_document(read: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return the head and the entries of a list of prompts, or of a mapping with such a list under ``prompts``."""
    head = read if isinstance(read, dict) else {"prompts": read}
    entries = head.get("prompts")
    if not isinstance(entries, list):
        raise ValueError("it has no list of prompts")
    return head, entries


def _of_lines(text: str) -> tuple[dict[str, Any], list[Any]]:
    """Return the head, if the first line is one, and the entries, one per line."""
    entries = []
    for number, line in enumerate(text.split("\n"), 1):  # a prompt may contain other line separators
        try:
            entries += [read_json(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    first = entries[0] if entries else None
    return (first, entries[1:]) if isinstance(first, dict) and "suite" in first else ({}, entries)


def _item(entry: Any) -> Item:
    known = {"prompt": entry} if isinstance(entry, str) else entry
    if not isinstance(known, dict) or not isinstance(known.get("prompt"), str):
        raise ValueError(f"{json.dumps(entry, default=str)[:200]} has no prompt that is a text")
    others = known.keys() - {"prompt", "category", "ask"}
    if others:
        raise ValueError(
            f"an entry has the unknown keys {', '.join(sorted(map(str, others)))}; known are prompt, category, ask"
        )
    ask = known.get("ask")
    if ask is not None:
        if not isinstance(ask, dict) or not all(type(count) is int for count in ask.values()):
            raise ValueError(f"'ask' of '{known['prompt']}' must map names of things to whole numbers")
        ask = Prompt(known["prompt"], {str(thing): count for thing, count in ask.items()}).ask
    return Item(known["prompt"].strip(), str(known.get("category") or ""), ask)


def _checked(suite: Suite, where: str) -> Suite:
    if not suite.items or not all(item.prompt for item in suite.items):
        raise RollflowError(f"the suite '{where}' has no prompts, or an empty one; every entry needs a prompt")
    distinct: dict[str, Item] = {}
    for item in suite.items:
        distinct.setdefault(json.dumps(asdict(item), sort_keys=True), item)
    return replace(suite, items=tuple(distinct.values()))
