"""Leases: one process holds a job, even if others are killed, asleep, in a container or on another machine."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rollflow.bench.run.leases import LEASE, Leases
from rollflow.files import shared
from rollflow.files.atomic import create
from rollflow.files.shared import has_ended, mark


def dead() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Clock:
    """A monotonic clock for watching leases, which the test advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def lease(self) -> None:
        """Advance the clock by more than a lease."""
        self.now += LEASE + 1


def marked(realm: str, process: int) -> str:
    return f"{realm}-{process}-00000000"


def test_one_has_it_until_it_is_given_back(tmp_path: Path) -> None:
    first, second = Leases(tmp_path), Leases(tmp_path)
    assert first.take("job")
    assert not second.take("job")
    assert not first.take("job")
    second.give_back("job")
    assert not second.take("job"), "it was not its own to give back"
    first.give_back("job")
    assert list(tmp_path.iterdir()) == []
    assert second.take("job")
    assert (tmp_path / "job").read_text() == second.owner


@pytest.mark.subprocess
def test_what_is_gone_or_asleep_is_taken_over(tmp_path: Path, clock: Clock) -> None:
    realm, process = mark().split("-")[0], dead()
    one = Leases(tmp_path)
    (tmp_path / "job").write_text(marked(realm, process))
    assert one.take("job")
    for owner in (marked("0" * 12, process), "", "nobody"):
        (tmp_path / "job").write_text(owner)
        assert not one.take("job"), "numbers are counted elsewhere: not certain to be gone"
        clock.now += LEASE - 1
        assert not one.take("job"), "not watched for long enough"
        clock.now += 2
        assert one.take("job")


@pytest.mark.subprocess
def test_processes_are_told_apart_by_where_they_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Containers of one image share a host name and count processes from 1, as does another boot."""
    mine, process = mark(), dead()
    assert not has_ended(mine)
    assert has_ended(marked(mine.split("-")[0], process))
    realms = set()
    for boot, namespace in (("a", "pid:[1]"), ("a", "pid:[2]"), ("b", "pid:[1]")):
        (tmp_path / "boot").write_text(boot)
        (tmp_path / namespace).symlink_to(namespace)
        monkeypatch.setattr(shared, "_BOOT", tmp_path / "boot")
        monkeypatch.setattr(shared, "_NAMESPACE", tmp_path / namespace)
        shared._realm.cache_clear()
        realms.add(mark().split("-")[0])
        assert not has_ended(mine)
        assert not has_ended(marked(mine.split("-")[0], process))
        (tmp_path / namespace).unlink()
    monkeypatch.undo()
    shared._realm.cache_clear()
    assert len(realms) == 3


def test_signs_of_life_are_given_for_ones_own_alone(tmp_path: Path, clock: Clock) -> None:
    first, second = Leases(tmp_path), Leases(tmp_path)
    assert first.take("job")
    assert not second.take("job")
    clock.lease()
    second.renew(["job", "other"])
    assert second.take("job"), "nobody but its owner gives a sign of life for a claim"
    assert not first.take("job")
    clock.lease()
    os.utime(tmp_path / "job", (0, 0))
    second.renew(["job"])
    assert not first.take("job")
    first.give_back("job")
    assert (tmp_path / "job").read_text() == second.owner, "taken over meanwhile"


def watched(leases: Leases, clock: Clock) -> None:
    """Let a process watch a lease without renewals for too long."""
    assert not leases.take("job")
    clock.lease()


def test_a_claim_that_was_made_meanwhile_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Before the second process acts on an abandoned lease, the first one has taken it over."""
    first, second = Leases(tmp_path), Leases(tmp_path)
    (tmp_path / "job").write_text("nobody")
    assert not first.take("job")
    watched(second, clock)
    judged, taken = second._abandoned, []

    def late(name: str, claim: Any) -> bool:
        verdict = judged(name, claim)
        taken.append(first.take("job"))
        return verdict

    monkeypatch.setattr(second, "_abandoned", late)
    assert not second.take("job")
    assert taken == [True, False]
    assert (tmp_path / "job").read_text() == first.owner
    assert len(list(tmp_path.iterdir())) == 1


def test_an_owner_that_woke_up_keeps_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    first, second = Leases(tmp_path), Leases(tmp_path)
    assert first.take("job")
    os.utime(tmp_path / "job", (0, 0))
    watched(second, clock)
    judged = second._abandoned

    def late(name: str, claim: Any) -> bool:
        verdict = judged(name, claim)
        first.renew(["job"])
        return verdict

    monkeypatch.setattr(second, "_abandoned", late)
    assert not second.take("job")
    assert (tmp_path / "job").read_text() == first.owner


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9])
def test_a_clock_that_jumps_takes_nothing_from_anyone(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The clock of this machine or of the file server may jump: time stamps are compared only with each other."""
    first, second = Leases(tmp_path), Leases(tmp_path)
    assert first.take("job")
    now = time.time()
    assert not second.take("job")
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert not second.take("job")
    os.utime(tmp_path / "job", (max(0, now + jump),) * 2)
    clock.now += LEASE - 1
    assert not second.take("job"), "a stamp that changed is a sign of life, whatever it says"
    clock.now += LEASE - 1
    assert not second.take("job")
    clock.now += 2
    assert second.take("job")


def test_leases_of_a_copied_folder_are_abandoned(tmp_path: Path, clock: Clock) -> None:
    """The owner of the leases is alive, but renews them in the original folder."""
    (tmp_path / "original").mkdir()
    owner = Leases(tmp_path / "original")
    assert owner.take("job")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy = Leases(tmp_path / "copy")
    assert not copy.take("job")
    clock.lease()
    owner.renew(["job"])
    assert copy.take("job")
    owner.give_back("job")
    assert (tmp_path / "copy/job").read_text() == copy.owner


def test_a_claim_that_says_anything_is_survived(tmp_path: Path, clock: Clock) -> None:
    one = Leases(tmp_path)
    for content in (b"\xff\xfe", b"0" * 10**6, f"{mark().split('-')[0]}-{'9' * 5000}-00000000".encode()):
        (tmp_path / "job").write_bytes(content)
        assert not one.take("job")
        clock.lease()
        assert one.take("job")
        one.give_back("job")


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


@pytest.mark.parametrize("kind", ["pipe", "link", "link to nothing"])
def test_what_is_no_file_is_no_claim(kind: str, tmp_path: Path) -> None:
    """A pipe or a link in place of a lease is neither waited for nor removed, since no process of ours created it."""
    place = tmp_path / "job"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(Path(__file__) if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"job in .* is not a regular file; remove it"):
        Leases(tmp_path).take("job")
    assert os.path.lexists(place)
