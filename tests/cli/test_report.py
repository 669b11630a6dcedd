"""``rollflow report`` and ``rollflow compare``."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from support.small_study import ARMS, folder  # noqa: F401
from typer.testing import CliRunner

from rollflow.bench.analysis.results import ExperimentResults
from rollflow.cli import report
from rollflow.report import tables

FILES = {"report.html", "report.md", "report.csv", "report.tex"}


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A folder of one's own."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def refused(capsys: pytest.CaptureFixture[str], command: str, *arguments: Path) -> str:
    """The one line on stderr."""
    with pytest.raises(typer.Exit) as exit_:
        getattr(report, command)(*arguments)
    assert exit_.value.exit_code == 2
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert out == ""
    assert line.startswith("error: ")
    return str(line)


@pytest.mark.draws
@pytest.mark.slow
def test_report_writes_its_files_into_the_folder(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in copy.iterdir()}
    report.report(copy, gallery=1)
    assert {path.name for path in copy.iterdir()} - before == FILES
    assert "each arm (4 of 6, 2 failed)" in capsys.readouterr().out
    text = (copy / "report.md").read_text()
    assert text.startswith("# tiny & small\n")
    assert "## Paired differences to BoN" in text
    assert "RBF\\_1" in (copy / "report.tex").read_text()
    with (copy / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = {row["row"] for row in rows if row["table"] == "Rewards"}
    assert told == {arm.name for arm in ARMS}
    for row in rows:  # no mean without an interval, or how many it is of
        if row["value"] and row["column"] not in {"jobs", "prompts", "pairs"}:
            assert row["note"] == ("n = 1" if row["table"] == "Rewards by category" else "n = 2")


def test_report_goes_where_it_is_told(copy: Path, tmp_path: Path) -> None:
    report.report(copy, tmp_path / "far" / "away.html", gallery=0)
    assert {path.name for path in (tmp_path / "far").iterdir()} == {name.replace("report", "away") for name in FILES}


@pytest.mark.slow
def test_a_report_replaces_itself_and_nothing_else(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in the folder, nor beside a page that the user named, which is replaced itself."""
    for _ in range(2):
        report.report(copy, gallery=0)
    capsys.readouterr()
    page = tmp_path / "report.html"
    page.write_text("mine")
    for name in FILES:
        before = (copy / name).read_text()
        (copy / name).write_text("mine")
        assert f"holds {name}, which rollflow did not write" in refused(capsys, "report", copy)
        if name != page.name:
            (tmp_path / name).write_text("mine")
            assert f"holds {name}, " in refused(capsys, "report", copy, page)
            (tmp_path / name).unlink()
        (copy / name).write_text(before)
    assert page.read_text() == "mine"
    report.report(copy, page, gallery=0)
    assert page.read_text() != "mine"


@pytest.mark.parametrize("name", ["results.md", "results"])
def test_a_report_that_would_be_no_html_is_refused(copy: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{name}', expected a name that ends in .html" in refused(capsys, "report", copy, copy / name)
    assert not (copy / name).exists()


def test_tables_are_made_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, once = [], tables.tables

    def counted(study: ExperimentResults) -> Any:
        calls.append(study)
        return once(study)

    monkeypatch.setattr(tables, "tables", counted)
    report.report(copy, gallery=0)
    assert len(calls) == 1


def test_compare_tells_settings_and_differences(
    folder: Path,  # noqa: F811
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = json.loads((copy / "experiment.json").read_text())
    config["arms"][1]["nfe"] = 48
    config["arms"][3]["name"] = "other"
    (copy / "experiment.json").write_text(json.dumps(config))
    journal = next(copy.glob("journal-*"))
    journal.write_bytes(b"".join(line for line in journal.read_bytes().splitlines(True) if b'"SMC"' not in line))
    report.compare(folder, copy, tmp_path / "told.md")
    text = capsys.readouterr().out
    assert (tmp_path / "told.md").read_text() == text
    lines = text.splitlines()
    assert lines[0] == "# tiny and copy"
    assert "| arms.BoN.nfe | 24 | 48 |" in lines
    assert "| arms.SMC.name | SMC | - |" in lines
    assert "| arm | pairs | caption | judge | share of judge = 0 |" in lines
    assert "| RBF_1 | 4 | 0 (n = 2) | 0 (n = 2) | 0 (n = 2) |" in lines
    assert not any(line.startswith(("| SMC |", "| other |")) for line in lines)
    assert "Second run: Unfinished; jobs done:" in text


def test_what_is_no_folder_is_refused(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a folder of 'rollflow bench run'" in refused(capsys, "report", tmp_path)
    for journal in copy.glob("journal-*"):
        journal.unlink()
    assert "no job of" in refused(capsys, "compare", copy, copy)
    (copy / "experiment.json").write_text("{")
    assert "cannot be read" in refused(capsys, "report", copy)


@pytest.mark.parametrize(("command", "argument"), [(report.report, "EXPERIMENT"), (report.compare, "SECOND")])
def test_commands_can_be_registered(command: Callable[..., None], argument: str) -> None:
    app = typer.Typer()
    app.command()(command)
    told = CliRunner().invoke(app, ["--help"])
    assert told.exit_code == 0
    assert argument in told.output


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "both.md").write_text("before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "disk of" in refused(capsys, "compare", copy, copy, tmp_path / "both.md")
    assert (tmp_path / "both.md").read_text() == "before"
    assert "is full (No space left on device)" in refused(capsys, "report", copy)
    assert not {path.name for path in copy.iterdir()} & FILES
