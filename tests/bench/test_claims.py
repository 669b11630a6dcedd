"""Claims: of all who want a job one has it, whoever is killed, asleep, in a container or on another machine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rollflow import sharing
from rollflow.bench.claims import LEASE, Claims
from rollflow.sharing import create, gone, mark


def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def asleep(path: Path) -> None:
    """Let the last sign of life be too long ago."""
    old = time.time() - LEASE - 1
    os.utime(path, (old, old))


def marked(realm: str, process: int) -> str:
    return f"{realm}-{process}-00000000"


def test_one_has_it_until_it_is_given_back(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("job")
    assert not second.take("job")
    assert not first.take("job")
    second.give_back("job")
    assert not second.take("job"), "it was not its own to give back"
    first.give_back("job")
    assert list(tmp_path.iterdir()) == []
    assert second.take("job")
    assert (tmp_path / "job").read_text() == second.owner


def test_what_is_gone_or_asleep_is_taken_over(tmp_path: Path) -> None:
    realm, process = mark().split("-")[0], dead()
    one = Claims(tmp_path)
    (tmp_path / "job").write_text(marked(realm, process))
    assert one.take("job")
    for owner in (marked("0" * 12, process), "", "nobody"):
        (tmp_path / "job").write_text(owner)
        assert not one.take("job"), "numbers are counted elsewhere: not certain to be gone"
        asleep(tmp_path / "job")
        assert one.take("job")


def test_processes_are_told_apart_by_where_they_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Containers of one image share a name, and count from 1; another boot counts anew."""
    mine, process = mark(), dead()
    assert not gone(mine)
    assert gone(marked(mine.split("-")[0], process))
    realms = set()
    for boot, namespace in (("a", "pid:[1]"), ("a", "pid:[2]"), ("b", "pid:[1]")):
        (tmp_path / "boot").write_text(boot)
        (tmp_path / namespace).symlink_to(namespace)
        monkeypatch.setattr(sharing, "_BOOT", tmp_path / "boot")
        monkeypatch.setattr(sharing, "_COUNTED", tmp_path / namespace)
        sharing._realm.cache_clear()
        realms.add(mark().split("-")[0])
        assert not gone(mine)
        assert not gone(marked(mine.split("-")[0], process))
        (tmp_path / namespace).unlink()
    monkeypatch.undo()
    sharing._realm.cache_clear()
    assert len(realms) == 3


def test_signs_of_life_are_given_for_ones_own_alone(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("job")
    asleep(tmp_path / "job")
    second.alive(["job", "other"])
    assert second.take("job"), "nobody but its owner gives a sign of life for a claim"
    asleep(tmp_path / "job")
    second.alive(["job"])
    assert not first.take("job")
    first.give_back("job")
    assert (tmp_path / "job").read_text() == second.owner, "taken over meanwhile"


def test_a_claim_that_was_made_meanwhile_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second judges a claim to be given up; before it acts on that, the first has taken it over."""
    first, second = Claims(tmp_path), Claims(tmp_path)
    (tmp_path / "job").write_text("nobody")
    asleep(tmp_path / "job")
    judged, taken = second._given_up, []

    def late(claim: Any) -> bool:
        verdict = judged(claim)
        taken.append(first.take("job"))
        return verdict

    monkeypatch.setattr(second, "_given_up", late)
    assert not second.take("job")
    assert taken == [True, False]
    assert (tmp_path / "job").read_text() == first.owner
    assert len(list(tmp_path.iterdir())) == 1


def test_an_owner_that_woke_up_keeps_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("job")
    asleep(tmp_path / "job")
    judged = second._given_up

    def late(claim: Any) -> bool:
        verdict = judged(claim)
        first.alive(["job"])
        return verdict

    monkeypatch.setattr(second, "_given_up", late)
    assert not second.take("job")
    assert (tmp_path / "job").read_text() == first.owner


def test_time_is_told_by_who_stamps_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is an hour ahead takes nothing from anyone."""
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("job")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert not second.take("job")
    assert abs(second.now() - now) < 60


def test_a_file_is_whole_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert create(tmp_path / "a", b"one")
    assert not create(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="no space"):
            create(tmp_path / "b", b"one")

    def none(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", none)
    assert create(tmp_path / "c", b"one")
    assert not create(tmp_path / "c", b"two")
    assert (tmp_path / "c").read_bytes() == b"one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
