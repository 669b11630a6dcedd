"""The list of choices that the package ships is that of its registries."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rollflow.cli import catalogue
from rollflow.cli.catalogue import FILE, KINDS, Entry
from rollflow.rewards import REWARDS

TOOL = Path(__file__).parents[2] / "tools/catalogue.py"


def by_name(contents: list[Any]) -> list[Any]:
    """Other tests replace classes in a registry, which changes its order."""
    return sorted(contents, key=lambda one: one if isinstance(one, str) else one["name"])


def test_the_file_is_up_to_date() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    current = catalogue.current()
    for kind, contents in current.items():
        assert by_name(stored[kind]) == by_name(contents), f"{kind} changed; run: python tools/catalogue.py"


@pytest.mark.skipif(not TOOL.exists(), reason="not in a source distribution without tools")
def test_the_tool_writes_the_file() -> None:
    spec = importlib.util.spec_from_file_location("tool_catalogue", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored, written = json.loads(FILE.read_text(encoding="utf-8")), json.loads(module.content())
    assert {kind: by_name(contents) for kind, contents in stored.items()} == {
        kind: by_name(contents) for kind, contents in written.items()
    }


def test_it_knows_every_registry() -> None:
    for kind in KINDS.values():
        registry = kind.find_registry()
        assert (registry.what, registry.group) == (kind.what, kind.group)


def test_no_default_is_of_this_machine() -> None:
    assert str(FILE.parent) not in FILE.read_text(encoding="utf-8")


def test_a_plugin_is_listed_behind_the_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "theirs", "nowhere:Theirs"

        def load(self) -> None:
            raise ImportError("no module named nowhere")

    monkeypatch.setattr("rollflow.registry.entry_points", lambda group: [Point()])
    found = catalogue.entries("rewards")
    assert sorted(entry.name for entry in found[:-1]) == sorted(REWARDS)
    assert found[-1] == Entry("reward", "theirs", "(reward 'theirs' cannot be loaded: no module named nowhere)")
