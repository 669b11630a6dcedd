"""``generate --dry-run`` refuses what the run would refuse, in the same words, and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from support.tiny import Broken, TinyModel, registered  # noqa: F401
from torch import Tensor

from rollflow.cli import main
from rollflow.errors import RewardUnavailable
from rollflow.files.atomic import PACKAGE
from rollflow.files.run_folder import LOCK, RunFolder
from rollflow.output import outputs

COMMAND = ["generate", "a red square", "--method", "rbf", "--nfe", "90", "-q"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which the run goes to 'rollflow-out'."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outputs, "_plots", lambda *_: {})  # which take their time
    return tmp_path / "rollflow-out"


@pytest.fixture
def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    with monkeypatch.context() as stopping:
        stopping.setattr(TinyModel, "interrupt_at", 9)
        assert main(COMMAND) == 130
    capsys.readouterr()
    return folder


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def refused_alike(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> str:
    """The one line with which the dry run and the run refuse, which change nothing and load nothing."""
    before, loads = state(folder), TinyModel.loads
    dry = main([*COMMAND, "--dry-run", *more])
    said = capsys.readouterr()
    assert state(folder) == before
    assert (main([*COMMAND, *more]), capsys.readouterr()) == (dry, said)
    assert TinyModel.loads == loads
    assert dry in (1, 2)
    assert said.out == ""
    [line] = said.err.splitlines()
    return str(line)


def test_what_it_may_use_it_does_not_make(folder: Path) -> None:
    assert main([*COMMAND, "--dry-run"]) == 0
    assert not folder.exists()
    assert main(COMMAND) == 0
    before = state(folder)
    assert main([*COMMAND, "--dry-run"]) == 0
    assert state(folder) == before


@pytest.mark.parametrize("name", ["image.png", "result.json", "trace.png", "checkpoint.pt"])
def test_files_of_the_user(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / name).write_text("mine")
    assert f"holds {name}, which rollflow did not write" in refused_alike(capsys, folder)


def test_a_run_that_is_at_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(folder):
        assert "another run is writing to 'rollflow-out'" in refused_alike(capsys, folder)


def test_a_lock_that_is_left_over_is_none(folder: Path) -> None:
    folder.mkdir()
    (folder / LOCK).touch()
    assert main([*COMMAND, "--dry-run"]) == 0
    os.remove(folder / LOCK)
    (folder / LOCK).symlink_to("remote")
    assert main([*COMMAND, "--dry-run"]) == 1


@pytest.mark.slow
def test_the_checkpoint_of_a_stopped_run(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a stopped run with these options" in refused_alike(capsys, stopped)
    assert "another run that was stopped (seed was 0, is 3)" in refused_alike(capsys, stopped, "--seed", "3")
    assert main([*COMMAND, "--dry-run", "--resume"]) == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--seed", "3"], "belongs to another job: seed was 0, is 3"),
        (["--nfe", "80"], "belongs to another job: nfe was 90, is 80"),
        (["--method", "bon"], "belongs to another job: search was"),
        (["--kernel", "ode"], "belongs to another job: sampler was"),
        (["--reward", "rollflow.rewards.pixels.colorfulness:Colorfulness"], "belongs to another job: reward was"),
    ],
)
@pytest.mark.slow
def test_another_job_to_resume(more: list[str], told: str, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused_alike(capsys, stopped, "--resume", *more)


@pytest.mark.slow
def test_nothing_to_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--dry-run", "--resume"]) == 1
    assert "to resume from: the folder holds no stopped run" in capsys.readouterr().err
    assert not folder.exists()
    assert main(COMMAND) == 0
    assert "the folder holds no stopped run" in refused_alike(capsys, folder, "--resume", "--seed", "3")
    assert main([*COMMAND, "--dry-run", "--resume"]) == 0, "it is finished already"


def test_a_damaged_checkpoint(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stopped / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1])
    assert "it was truncated or changed" in refused_alike(capsys, stopped, "--resume")


def test_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--dry-run", "--out", str(PACKAGE / "out")]) == 2
    assert "lies inside the installed package" in capsys.readouterr().err


def test_a_search_that_found_nothing_leaves_nothing_to_resume(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its end it would fail in the same way again."""
    monkeypatch.setattr(Broken, "probed", False)
    assert main([*COMMAND, "--reward", "broken"]) == 1
    assert "no sample can be chosen: first, reward 'broken' gave nan" in capsys.readouterr().err
    assert not (folder / "checkpoint.pt").exists()
    assert main([*COMMAND, "--dry-run"]) == 0


def test_a_failure_on_the_way_says_what_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a method that scores at its end alone, so that there is no sample."""
    command = [*COMMAND, "--method", "bon", "--reward", "broken"]
    monkeypatch.setattr(Broken, "probed", False)

    def away(self: Broken, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        raise RewardUnavailable("gone")

    monkeypatch.setattr(Broken, "score", away)
    for more in ([], ["--resume"], ["--resume"]):
        assert main([*command, *more]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line == (
            "error: gone; 'rollflow-out/checkpoint.pt' keeps the progress: when the cause is fixed, "
            "continue with --resume, or remove the file to start over"
        )
    monkeypatch.setattr(Broken, "score", lambda self, samples, prompts: torch.ones(len(samples)))
    assert main([*command, "--resume"]) == 0
