"""Folders of experiments: what processes agree on, truncated journals, and remains of killed processes."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.small_study import entry
from support.waiting import PATIENCE
from test_leases import dead, marked
from tiny_experiment import experiment

from rollflow.bench.analysis.results import read
from rollflow.bench.run.description import CONFIG, PROVENANCE, read_config
from rollflow.bench.run.folder import ExperimentFolder, refuse_other
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.leases import LEASE
from rollflow.errors import RollflowError
from rollflow.files.atomic import write
from rollflow.files.shared import mark

IDENTITY = {"model": "m(1)", "reward": "r(1)", "held_out": ["j(1)"], "versions": {"rollflow": "1", "torch": "2"}}


def test_of_two_that_set_a_folder_up_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes have seen that there is no configuration."""
    first, second = ExperimentFolder(tmp_path), ExperimentFolder(tmp_path)
    first.set_up({"nfe": 1}, "first")
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != CONFIG and exists(path))
    with pytest.raises(RollflowError, match="nfe was 1, is 2"):
        second.set_up({"nfe": 2}, "second")
    second.set_up({"nfe": 1}, "second")
    assert read_config(tmp_path) == {"nfe": 1}
    assert (tmp_path / "command.txt").read_text() == "first"


def test_an_experiment_is_gone_on_with_only_where_that_is_meant(tmp_path: Path) -> None:
    ExperimentFolder(tmp_path).set_up({"nfe": 1}, resume=False)
    with pytest.raises(RollflowError, match="already holds an experiment; resume it with --resume"):
        ExperimentFolder(tmp_path).set_up({"nfe": 1}, resume=False)
    ExperimentFolder(tmp_path).set_up({"nfe": 1})


def test_threads_may_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, both = os.replace, threading.Barrier(2)

    def late(*paths: Path) -> None:
        both.wait(PATIENCE)
        replace(*paths)

    monkeypatch.setattr(os, "replace", late)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, tmp_path, {"a.txt": b"content"}) for _ in range(2)]:
            done.result()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_where_a_pipeline_runs_need_not_be_agreed_on() -> None:
    def config(**pipeline: str) -> dict[str, Any]:
        return experiment(pipeline=pipeline).config()

    one = config(dtype="bfloat16", device="cuda:0")
    assert one == config(dtype="bfloat16", device="cuda:1", offload="model")
    assert one != config(dtype="float32", device="cuda:0")
    assert config(quantize="8bit") != config()


def test_a_line_that_a_full_disk_has_cut_spoils_no_other(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    folder.record({"id": "a"})
    [journal] = tmp_path.glob("journal-*.jsonl")
    with journal.open("a") as file:
        file.write('1234abcd {"id": "b", "rew')
    index = JournalIndex(tmp_path)
    folder.record({"id": "c"})
    folder.record({"id": "d"})
    index.refresh()
    assert list(index.done) == list(JournalIndex(tmp_path).done) == ["a", "c", "d"]


def test_other_weights_are_refused_and_other_versions_told(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    assert folder.identify(IDENTITY) == []
    assert (tmp_path / PROVENANCE).exists()
    newer = {**IDENTITY, "versions": {"rollflow": "1", "torch": "3"}}
    assert ExperimentFolder(tmp_path).identify(newer) == ['versions.torch was "2", is "3"'.removeprefix("versions.")]
    with pytest.raises(
        RollflowError, match=r'other weights or settings: model was "m\(1\)", is "m\(2\)"; held_out\[0\]'
    ):
        folder.identify({**newer, "model": "m(2)", "held_out": ["j(2)"]})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.subprocess
def test_what_killed_processes_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, realm, now = ExperimentFolder(tmp_path), mark().split("-")[0], time.monotonic()
    killed, far = marked(realm, dead()), marked("0" * 12, 1)
    places = ["", "images/", "claims/", "checkpoints/"]
    kept = {"checkpoints/open.pt", "claims/open", "claims/at work", "checkpoints/at work.pt", "images/over.png"}
    kept |= {f"{place}.rollflow-{mark()}.x.part" for place in places} | {"checkpoints/unknown.pt", "claims/unknown"}
    left = {f"{place}.rollflow-{killed}.x.png.part" for place in places} | {"checkpoints/over.pt", "claims/over"}
    asleep = {f"images/.rollflow-{far}.x.part"}
    for name in kept | left | asleep:
        (tmp_path / name).write_text(folder.leases.owner)
    (tmp_path / "claims/over").write_text(killed)
    (tmp_path / "claims/unknown").write_text(killed)
    folder.tidy(["over", "at work"])
    assert files(tmp_path) == kept | asleep
    (kept_part,) = tmp_path.glob(f".rollflow-{realm}-*")
    kept_part.write_text("it grows")
    os.utime(tmp_path / "claims/at work", (1, 1))
    monkeypatch.setattr(time, "monotonic", lambda: now + LEASE + 60)
    folder.tidy(["over", "at work"])
    assert files(tmp_path) == {name for name in kept if not name.endswith(".part")} | {kept_part.name}


USERS = [".bashrc", ".gitignore", ".env", ".clock", ".rollflowrc", "notes.partial.md", "movie.part1.rar", "x.pt.part"]
USERS += [
    ".x.png.part",
    f".rollflow-{marked('0' * 12, 1)}.part",
    ".rollflow-notes.part",
    f"x.rollflow-{marked('0' * 12, 1)}.x.part",
    "checkpoint.pt",
    "model.pt",
]
USERS += [f".rollflow-{marked('0' * 12, 1)}.x.part.bak", f".{marked('0' * 12, 1)}.clock", "0123456789abcdef.pt"]


@pytest.mark.subprocess
def test_files_of_the_user_stay(tmp_path: Path) -> None:
    """They are kept whatever their names and ages, in any folder."""
    folder = ExperimentFolder(tmp_path)
    for place in ("", "images", "claims", "checkpoints"):
        for name in USERS:
            path = tmp_path / place / name
            path.write_text("precious")
            os.utime(path, (1, 1))
        (tmp_path / place / f".rollflow-{marked(mark().split('-')[0], dead())}.x.part").mkdir()
    before = files(tmp_path)
    for _ in range(2):
        folder.tidy(["fedcba9876543210"])
    assert files(tmp_path) == before


def test_a_command_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / "command.txt").write_text("my own")
    ExperimentFolder(tmp_path).set_up({"nfe": 1}, "rollflow bench run")
    assert (tmp_path / "command.txt").read_text() == "my own"


def test_jobs_that_were_resumed_have_no_genealogy(tmp_path: Path) -> None:
    """The first steps of resumed jobs are not in the journal."""
    folder = ExperimentFolder(tmp_path)
    folder.set_up(experiment().config())
    steps = {"quota": [[2, 2]], "ancestors": [[[0, 0]]], "sha256": ""}
    folder.record(entry("SMC", "a", 0, 1.0, **steps) | {"id": "a" * 16, "resumed": True, "steps": [[4, 5]]})
    folder.record(entry("SMC", "b", 0, 1.0, **steps) | {"id": "b" * 16})
    first, second = read(tmp_path).done
    assert (first.quota, second.quota) == ((), [[2, 2]])
    assert (first.ancestors, second.ancestors) == (None, [[[0, 0]]])


@pytest.mark.parametrize("part", ["claims", "checkpoints", "images"])
def test_nothing_is_written_through_a_link_to_another_folder(part: str, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    (theirs / part).symlink_to(mine)
    with pytest.raises(RollflowError, match=f"{part}' is a link to another folder"):
        refuse_other(theirs, {"nfe": 1})
    (tmp_path / "name").symlink_to(theirs)  # the folder itself may be reached by one
    (theirs / part).unlink()
    refuse_other(tmp_path / "name", {"nfe": 1})


def test_a_journal_that_is_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal-a.jsonl").symlink_to("journal-a.jsonl")
    with pytest.raises(RollflowError, match=r"leads back to itself|symbolic links"):
        JournalIndex(tmp_path)
