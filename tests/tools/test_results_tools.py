"""The tools that keep the results: tables from records, byte for byte, and what the repository may weigh."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from support.small_study import entry, study

from rollflow.bench.run.experiment import Arm

ROOT = Path(__file__).parents[2]
RESULTS = sorted(path.name.removesuffix(".jsonl.gz") for path in (ROOT / "results").glob("*.jsonl.gz"))
SMALLEST = "table-compositional-turbo"

pytestmark = pytest.mark.skipif(not RESULTS, reason="a source distribution has no results")


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one == SMALLEST else [pytest.mark.exhaustive]) for one in RESULTS]
)
@pytest.mark.slow
def test_the_tables_of_the_docs_are_those_of_the_records(name: str) -> None:
    assert tool("tables").main([name, "--check"]) == 0


@pytest.mark.slow
def test_tables_that_differ_are_named_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tool("tables")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    (tmp_path / f"{SMALLEST}.md").write_text("by hand")
    assert tables.main([SMALLEST, "--check"]) == 1
    assert f"{SMALLEST}.md; run python tools/tables.py" in capsys.readouterr().err
    assert tables.main([SMALLEST]) == 0
    assert (tmp_path / f"{SMALLEST}.md").read_bytes() == (ROOT / f"docs/results/{SMALLEST}.md").read_bytes()


def test_the_page_on_searches_has_those_of_the_preset() -> None:
    """What stands between its marks is written by the tool, and writing it again changes nothing."""
    tables = tool("tables")
    experiments = tables._of("hard")
    page = tables.CHOICE.read_text()
    assert tables.inserted(page, experiments) == page
    assert page.count(tables.BEGIN) == page.count(tables.END) == 1
    assert all(f"(results/{name}.md)" in page for name in experiments)


def test_an_experiment_of_the_preset_is_inserted_with_its_figure() -> None:
    tables = tool("tables")
    arms = (Arm("BoN, 50", "bon", 50), Arm("BoN, 500", "bon", 500), Arm("auto, 50", "auto", 50))
    entries = [entry(arm.name, p, 0, float(i), held_out={"judge": 0.0}) for i, arm in enumerate(arms) for p in "abc"]
    results = study(*entries, arms=arms, seeds=1)
    known = {"model": "scenes-turbo", "held_out": ["judge"], "suite": {"name": "s", "version": "", "prompts": 3}}
    results = replace(results, config=results.config | known)
    page = f"before\n{tables.BEGIN}old\n{tables.END}after\n"
    text = tables.inserted(page, {"hard-x": results})
    assert text.startswith(f"before\n{tables.BEGIN}\n### scenes-turbo\n")
    assert text.endswith(f"{tables.END}after\n")
    assert "old" not in text
    assert "](results/hard-x.png)" in text
    assert "| BoN | 500 (n = 3) |" in text
    assert "| auto | \\<50 (n = 3) |" in text
    assert tables.inserted(text, {"hard-x": results}) == text


def test_the_repository_is_light() -> None:
    weight = tool("weight")
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    files = weight.tracked()
    assert len(files) > 300
    assert sum(path.stat().st_size for path in files) < 60e6
    assert weight.main([]) == 0


def test_weight_and_journals_are_refused() -> None:
    weight = tool("weight")
    assert weight.faults("the tree", 5, 6, ["a/journal.md", "results/x.jsonl.gz"]) == []
    assert weight.faults("the tree", 7, 6, []) == ["the tree has 7 bytes, at most 6 are allowed"]
    [fault] = weight.faults("the sdist", 1, 6, ["x/docs/journal-1.jsonl"])
    assert "holds the uncompressed journal x/docs/journal-1.jsonl" in fault
