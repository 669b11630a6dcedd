"""Suites of prompts: those shipped here, published ones, and a user's own file."""

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
    """A suite by its name, or from a file; an entry that stands in it twice is kept once, since its jobs are the same.

    Args:
        name: One of ``shipped()``; one of ``PUBLISHED``, fetched from the hub, or read from a local copy as
            ``drawbench=copy.csv``; or the path of a file of one's own: YAML, JSON or JSONL with a ``prompt`` an entry
            and, if there are such, its ``category`` and ``ask``; or a text file, a prompt a line.

    Raises:
        UnknownName: If nothing has the name.
        RollflowError: If it cannot be had or read.
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
    """Names of the suites in the package."""
    return sorted(path.stem for path in DATA.glob("*.jsonl"))


def lines_of(suite: Suite) -> str:
    """A suite as JSONL: a line that names it, then one a prompt."""
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
    """Write a suite to a file of JSON lines, whole or not at all."""
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
            f"the suite '{path}' cannot be read: {line:.500}; expected entries with a prompt each"
        ) from error
    return _checked(Suite(str(head.get("suite", path.stem)), str(head.get("version", "")), items), str(path))


def _of_document(read: Any) -> tuple[dict[str, Any], list[Any]]:
    """The head and the entries of a list of prompts, or of a mapping that has one under ``prompts``."""
    head = read if isinstance(read, dict) else {"prompts": read}
    entries = head.get("prompts")
    if not isinstance(entries, list):
        raise ValueError("there is no list of prompts")
    return head, entries


def _of_lines(text: str) -> tuple[dict[str, Any], list[Any]]:
    """The head, if the first line is one, and an entry a line."""
    entries = []
    for number, line in enumerate(text.split("\n"), 1):  # other ends of lines may stand in a prompt
        try:
            entries += [read_json(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    first = entries[0] if entries else None
    return (first, entries[1:]) if isinstance(first, dict) and "suite" in first else ({}, entries)


def _item(entry: Any) -> Item:
    known = {"prompt": entry} if isinstance(entry, str) else entry
    if not isinstance(known, dict) or not isinstance(known.get("prompt"), str):
        raise ValueError(f"{json.dumps(entry, default=str)[:200]} has no text as its prompt")
    strange = known.keys() - {"prompt", "category", "ask"}
    if strange:
        raise ValueError(f"an entry has {', '.join(sorted(map(str, strange)))}; known are prompt, category, ask")
    ask = known.get("ask")
    if ask is not None:
        if not isinstance(ask, dict) or not all(type(count) is int for count in ask.values()):
            raise ValueError(f"'ask' of '{known['prompt']}' is not things with whole numbers")
        ask = Prompt(known["prompt"], {str(thing): count for thing, count in ask.items()}).ask
    return Item(known["prompt"].strip(), str(known.get("category") or ""), ask)


def _checked(suite: Suite, where: str) -> Suite:
    if not suite.items or not all(item.prompt for item in suite.items):
        raise RollflowError(f"the suite '{where}' has no prompts, or an empty one")
    different: dict[str, Item] = {}
    for item in suite.items:
        different.setdefault(json.dumps(asdict(item), sort_keys=True), item)
    return replace(suite, items=tuple(different.values()))
