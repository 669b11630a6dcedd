"""Links of pages that are read in the repository and on the site."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
KNOWN = {
    "index.md",
    "architecture.md",
    "rewards/README.md",
    "model-card.md",
    "contributing.md",
    "examples/own_model.py",
}


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools/site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "written", "expected"),
    [
        ("docs/rewards/README.md", "[a](../architecture.md#map)", "[a](../architecture.md#map)"),
        ("docs/rewards/README.md", "[a](../../src/rollflow/models/scenes/CARD.md)", "[a](../model-card.md)"),
        ("docs/index.md", "[a](../examples/own_model.py)", "[a](examples/own_model.py)"),
        ("docs/index.md", "![a](../tools/overhead.py)", "a"),
        ("docs/index.md", "[a](nowhere.md)", "[a](nowhere.md)"),
        ("docs/index.md", "[a](https://example.org/b.md), [b](#c)", "[a](https://example.org/b.md), [b](#c)"),
        (
            "CONTRIBUTING.md",
            "[a](docs/architecture.md), [b](docs/nowhere.md)",
            "[a](architecture.md), [b](docs/nowhere.md)",
        ),
        ("src/rollflow/models/scenes/CARD.md", "[a](grammar.py)", "a"),
        ("docs/index.md", "```\n[a](../tools/overhead.py)\n```", "```\n[a](../tools/overhead.py)\n```"),
    ],
)
def test_links_hold_on_the_site(hooks: ModuleType, source: str, written: str, expected: str) -> None:
    assert hooks.relinked(written, source, KNOWN) == expected


def test_what_is_brought_in_exists(hooks: ModuleType) -> None:
    assert all((ROOT / source).is_file() for source in hooks.PAGES)
    assert all(list(ROOT.glob(pattern)) for pattern in hooks.DOWNLOADS)
