"""One name, one thing: no two classes or type aliases of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import rollflow

SOURCES = sorted(Path(rollflow.__file__).parent.rglob("*.py"))


def named(source: str) -> Iterator[str]:
    """The names of classes, at any depth, and of type aliases."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation):
            yield ast.unparse(node.target)


def shared(sources: dict[str, str]) -> dict[str, list[str]]:
    """Names that stand for more than one thing, with the modules that they are in."""
    modules = defaultdict(list)
    for module, source in sources.items():
        for name in named(source):
            modules[name].append(module)
    return {name: places for name, places in modules.items() if len(places) > 1}


@pytest.mark.slow
def test_no_two_classes_or_aliases_share_a_name() -> None:
    assert len(SOURCES) > 200
    assert shared({str(path): path.read_text(encoding="utf-8") for path in SOURCES}) == {}


@pytest.mark.parametrize(
    "other",
    ["class A: pass", "def f():\n    class A: pass", "A: TypeAlias = int", "A: typing.TypeAlias = list[int]"],
    ids=["class", "inner class", "alias", "qualified alias"],
)
def test_a_second_one_is_found(other: str) -> None:
    assert shared({"one": "class A: ...\nB: int = 1", "two": other, "three": "A = 1\nclass B: ..."}) == {
        "A": ["one", "two"]
    }
