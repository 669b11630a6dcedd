"""Files of names that rollflow makes up replace none but its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.small_study import folder  # noqa: F401
from support.tiny import TinyModel

from rollflow.bench.suites import difficulty
from rollflow.cli import main
from rollflow.errors import BadSetting
from rollflow.files.own import check_own, is_own
from rollflow.output import plots
from rollflow.report.typeset import Table, comma_separated

RESULTS = Path(__file__).parents[2] / "docs/results"


def test_marks_of_what_is_written(tmp_path: Path) -> None:
    difficulty.save_suite({"easy": [difficulty.Graded("a", 0.5)]}, TinyModel(), tmp_path / "s.jsonl")
    (tmp_path / "a.png").write_bytes(plots.figure_png(Figure()))
    (tmp_path / "a.csv").write_text(comma_separated([Table("t", ("a", "b"), (("r", 1),))]))
    for name in ("s.graded.json", "a.png", "a.csv"):
        assert is_own(tmp_path / name), name


@pytest.mark.parametrize("name", ["searches.md", "mixture.md", "mixture.png"])
def test_the_results_of_the_docs_can_be_written_again(name: str) -> None:
    assert is_own(RESULTS / name)


@pytest.mark.slow
def test_reports_can_be_written_again(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    assert main(["report", str(folder), "--out", str(tmp_path / "searches.html")]) == 0
    for name in ("searches.html", "searches.md", "searches.csv", "searches.tex"):
        assert is_own(tmp_path / name), name


@pytest.mark.parametrize("name", ["a.html", "a.md", "a.csv", "a.tex", "a.png", "a.json", "a.txt"])
def test_files_of_the_user_are_refused(name: str, tmp_path: Path) -> None:
    check_own(tmp_path, [name])
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadSetting, match=rf"holds {re.escape(name)}, which rollflow did not write"):
        check_own(tmp_path, [name, "other"])


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").symlink_to(RESULTS / "searches.md")
    (tmp_path / "b.md").symlink_to("nowhere")
    (tmp_path / "c.md").mkdir()
    for name in ("a.md", "b.md", "c.md"):
        with pytest.raises(BadSetting):
            check_own(tmp_path, [name])


COMMANDS = {
    "profile-scenes-base-caption.md": ["profile", "--prompts", "1", "--steps", "2"],
    "profile-scenes-base-caption.png": ["profile", "--prompts", "1", "--steps", "2"],
    "profile-scenes-base-caption.npz": ["profile", "--prompts", "1", "--steps", "2"],
    "profile-scenes-base-caption.part.npz": ["profile", "--prompts", "1", "--steps", "2", "--resume"],
    "diversity-scenes-base.md": ["diversity", "--prompts", "1", "--trajectories", "2"],
    "mixture.md": ["mixture", "--seeds", "1", "--budgets", "25"],
    "mixture.png": ["mixture", "--seeds", "1", "--budgets", "25"],
    "graded.graded.json": ["grade", "--candidates", "1"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_measurements_refuse_before_they_begin(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text(json.dumps("mine"))
    out = tmp_path / "graded.jsonl" if "graded" in name else tmp_path
    assert main(["bench", *COMMANDS[name], "--out", str(out)]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert f"holds {name}, which rollflow did not write" in said
    assert [path.name for path in tmp_path.iterdir()] == [name]
