"""Output folders of runs: files of the user stay, and no two runs write to one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollflow.errors import FolderError, RollflowWarning
from rollflow.files import atomic
from rollflow.files.atomic import write
from rollflow.files.run_folder import LOCK, RESULT, RunFolder

NAMES = ["a.png", "b.png"]


def kept(folder: Path, files: dict[str, bytes], **content: object) -> None:
    with RunFolder(folder) as out:
        out.keep(content, files)
        out.remove_earlier()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != RESULT}


def test_files_of_a_run_are_replaced_and_removed_by_the_next(tmp_path: Path) -> None:
    kept(tmp_path, {"a.png": b"1", "b.png": b"2"})
    kept(tmp_path, {"a.png": b"3"})
    assert contents(tmp_path) == {"a.png": b"3"}


def test_files_of_the_user_are_neither(tmp_path: Path) -> None:
    """Neither those with a run's names, nor its own that were changed since, nor links and folders."""
    kept(tmp_path, {"a.png": b"1", "b.png": b"2", "c.png": b"3", "d.png": b"4"})
    (tmp_path / "b.png").write_bytes(b"my own")
    (tmp_path / "c.png").unlink()
    (tmp_path / "mine.png").write_bytes(b"3")
    (tmp_path / "c.png").symlink_to("mine.png")
    (tmp_path / "d.png").unlink()
    (tmp_path / "d.png").mkdir()
    with RunFolder(tmp_path) as out:
        assert out.foreign(["a.png", "b.png", "c.png", "d.png", "e.png"]) == ["b.png", "c.png", "d.png"]
        assert [out.free(name) for name in ("a.png", "b.png")] == ["a.png", "b-1.png"]
        out.keep({}, {"a.png": b"5"})
        out.remove_earlier()
    assert (tmp_path / "b.png").read_bytes() == b"my own"
    assert (tmp_path / "c.png").is_symlink()
    assert (tmp_path / "d.png").is_dir()
    assert (tmp_path / "a.png").read_bytes() == b"5"


HOSTILE = [
    "[]",
    "null",
    "{",
    "[" * 100_000,
    '{"files": {"a.png": "1"}}',
    '{"files": {"result.json": 3}}',
    '{"files": {"result.json": "0", "../../x": "0"}, "prompt": "p"}',
    '{"files": [], "versions": {"rollflow": "1"}}',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_result_that_rollflow_did_not_write_proves_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(text)
    (tmp_path / "a.png").write_bytes(b"1")
    with RunFolder(tmp_path) as out:
        assert out.earlier is None
        assert out.foreign(["a.png", RESULT]) == ["a.png", RESULT]


def test_a_result_that_was_edited_is_the_users(tmp_path: Path) -> None:
    kept(tmp_path, {"a.png": b"1"}, prompt="p")
    told = json.loads((tmp_path / RESULT).read_text())
    (tmp_path / RESULT).write_text(json.dumps(told))
    with RunFolder(tmp_path) as out:
        assert out.foreign([RESULT]) == [], "told in another way, it says the same"
    (tmp_path / RESULT).write_text(json.dumps({**told, "prompt": "q"}))
    with RunFolder(tmp_path) as out:
        assert out.foreign([RESULT]) == [RESULT]


def test_a_file_outside_the_folder_is_out_of_reach(tmp_path: Path) -> None:
    """Whatever a sealed result.json names: anyone can compute a seal."""
    (tmp_path / "precious").write_bytes(b"1")
    kept(tmp_path / "out", {"a.png": b"1"})
    with RunFolder(tmp_path / "out") as out:
        out._files = {"../precious": out.earlier["files"]["a.png"]} if out.earlier else {}
        out.keep({}, {})
    kept(tmp_path / "out", {})
    assert (tmp_path / "precious").exists()


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(FolderError, match="another run is writing to"), RunFolder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with RunFolder(tmp_path):
        pass


SCRIPT = """
import os, signal, sys
from pathlib import Path
from rollflow.files import atomic
from rollflow.files.run_folder import RunFolder
replace, left = os.replace, int(sys.argv[2])

def dying(*paths):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(*paths)

os.replace = dying
with RunFolder(Path(sys.argv[1])) as out:
    assert not out.foreign(["a.png", "b.png", "result.json"]), out.foreign(["a.png", "b.png", "result.json"])
    out.keep({"prompt": "p"}, {"a.png": b"new", "b.png": b"new"})
"""


@pytest.mark.subprocess
def test_killed_between_any_two_files_it_still_knows_its_own(tmp_path: Path) -> None:
    """And another that is killed after that, and so on; a user's file in between is known for one, too."""
    kept(tmp_path, {"a.png": b"old", "b.png": b"old"})
    for left in (1, 2):
        child = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), str(left)], capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert (tmp_path / LOCK).exists()
        with RunFolder(tmp_path) as out:
            assert out.foreign([*NAMES, RESULT]) == []
    (tmp_path / "b.png").write_bytes(b"my own")
    with RunFolder(tmp_path) as out:
        assert out.foreign([*NAMES, RESULT]) == ["b.png"]
        out.keep({}, {"a.png": b"newer"})
    assert not (tmp_path / LOCK).exists()
    assert (tmp_path / "b.png").read_bytes() == b"my own"


def test_a_folder_that_goes_during_the_run_is_made_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out") as out:
        (tmp_path / "out").rename(tmp_path / "remote")
        with pytest.warns(RollflowWarning, match="was moved or deleted during the run"):
            out.keep({"prompt": "p"}, {"a.png": b"1"})
    assert contents(tmp_path / "out") == {"a.png": b"1"}


def test_what_is_written_is_flushed_and_so_is_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: contents, names, the folder of the names."""
    told: list[tuple[str, str]] = []
    replace = os.replace

    def flushed(handle: int) -> None:
        told.append(("flushed", Path(os.readlink(f"/proc/self/fd/{handle}")).name))

    def replaced(source: Path, target: Path) -> None:
        told.append(("named", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    write(tmp_path, {"a": b"1", "b": b"2"})
    parts = [name for what, name in told[:2] if what == "flushed" and atomic.PART.fullmatch(name)]
    assert len(parts) == 2
    assert told[2:] == [("named", "a"), ("named", "b"), ("flushed", tmp_path.name)]
    told.clear()
    assert atomic.create(tmp_path / "c", b"3")
    assert [what for what, _ in told] == ["flushed", "flushed"]
    assert told[-1] == ("flushed", tmp_path.name)
    told.clear()
    atomic.make_folder(tmp_path / "x/y")
    assert sorted(told) == sorted([("flushed", "x"), ("flushed", tmp_path.name)])


def test_a_file_of_the_user_that_has_the_name_of_the_lock_stays(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("my notes")
    with pytest.raises(FolderError, match=r"holds a .* that rollflow did not write"), RunFolder(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text() == "my notes"
