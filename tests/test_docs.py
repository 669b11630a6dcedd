"""The documentation names everything that is public, and the rules that the code is held to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import rollflow
from rollflow.dynamics.lookahead import LOOKAHEADS

DOCS = Path(__file__).parents[1] / "docs"
METHODS = {
    "searches": [
        rollflow.SEARCHES,
        rollflow.ACCEPTANCES,
        rollflow.QUOTAS,
        rollflow.KEEPINGS,
        rollflow.NOISE_WEIGHTS,
        rollflow.POTENTIALS,
        rollflow.TEMPERINGS,
        rollflow.RESAMPLING,
    ],
    "kernels": [rollflow.KERNELS, rollflow.COEFFICIENTS],
    "interpolants": [rollflow.INTERPOLANTS, rollflow.GRIDS],
    "lookaheads": [LOOKAHEADS],
    "guidance": [rollflow.GUIDANCE],
}


@pytest.mark.parametrize(("page", "registries"), METHODS.items(), ids=METHODS)
def test_a_page_documents_every_method_and_no_other(page: str, registries: list[Any]) -> None:
    documented = re.findall(r"^::: rollflow\.(\w+)$", (DOCS / f"methods/{page}.md").read_text(), re.M)
    assert sorted(documented) == sorted({kind.__name__ for registry in registries for kind in registry.values()})


def test_every_public_name_is_on_a_page() -> None:
    text = "\n".join(page.read_text() for folder in ("api", "methods") for page in (DOCS / folder).glob("*.md"))
    missing = [name for name in vars(rollflow)["__all__"] if not re.search(rf"(rollflow\.|`){name}\b", text)]
    assert missing == []


def test_the_architecture_page_has_the_rows_of_the_import_contract() -> None:
    contract = (DOCS.parent / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    rows = [re.findall(r"\w+", row) for row in re.findall('"(.*)"', contract)]
    page = re.findall(r"^1\. (`.*`)$", (DOCS / "architecture.md").read_text(), re.M)
    assert [sorted(re.findall("`(\\w+)`", row)) for row in page] == [sorted(row) for row in rows]


def test_every_page_is_in_the_navigation_or_said_not_to_be() -> None:
    """Results but for their overview are reached from there."""
    config = (DOCS.parent / "mkdocs.yml").read_text()
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    missing = [page for page in pages if not page.startswith("results/") and f": {page}\n" not in config]
    assert missing == []


def test_files_that_are_named_exist() -> None:
    """Paths of tests and tools, in backticks; ``-k`` and other arguments behind them are not looked at."""
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]
    named = {
        (page.name, path)
        for page in pages
        for path in re.findall(r"`(?:python |pytest )?((?:tests|tools|src)/[\w/.-]+)", page.read_text())
    }
    missing = sorted((page, path) for page, path in named if not (DOCS.parent / path).exists())
    assert len(named) > 15
    assert missing == []
