"""Who is at which job: files that one process alone can make, and that others take over when it is gone."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from functools import partial
from operator import eq
from pathlib import Path
from typing import NamedTuple

from rollflow.files.atomic import create, link, part_of
from rollflow.files.shared import gone, mark

LEASE = 120.0
"""Seconds without a sign of life after which a claim is given up whose process is not certain to be gone."""


class _Lease(NamedTuple):
    """What a claim says: whose it is, and the stamp of that one's last sign of life."""

    owner: str
    seen: int


class Stillness:
    """For how long things have not changed, as far as this process has watched them, by its own monotonic clock.

    Clocks that jump (a suspended machine, one that is set, a file server's) do not matter: stamps are compared with
    each other alone, never with a clock.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[Hashable, float]] = {}

    def of(self, name: str, value: Hashable) -> float:
        """Seconds since a thing was first seen to have the value that it has now."""
        now = time.monotonic()
        known = self._since.get(name)
        if known is None or known[0] != value:
            known = self._since[name] = value, now
        return now - known[1]


class Leases:
    """The leases in a folder, for a process that takes jobs.

    Args:
        path: Of the folder.

    Attributes:
        owner: Mark of this process, which its leases hold.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, mark()
        self._stillness = Stillness()

    def take(self, name: str) -> bool:
        """Take a job; False if another has it.

        A claim is taken over if its process is gone, or if this one has watched it for ``LEASE`` seconds without a sign
        of life.
        """
        path = self.path / name
        for _ in range(3):
            if create(path, self.owner.encode(), durable=False):
                return True
            claim = _read(path)
            if claim is None:
                continue  # given back just now
            if not self._given_up(name, claim):
                return False
            _remove(path, partial(eq, claim))
        return False

    def alive(self, names: Iterable[str]) -> None:
        """A sign of life for jobs, as far as they are still one's own.

        Raises:
            OSError: If it cannot be given.
        """
        for name in names:
            if self._is_own(_read(self.path / name)):
                with suppress(FileNotFoundError):
                    os.utime(self.path / name)

    def give_back(self, name: str) -> None:
        """Let go of a job, if it is still one's own."""
        if self._is_own(_read(self.path / name)):
            _remove(self.path / name, self._is_own)

    def tidy(self, names: Iterable[str]) -> None:
        """Remove the abandoned leases of these jobs."""
        for name in set(names) & set(os.listdir(self.path)):
            claim = _read(self.path / name)
            if claim is not None and self._given_up(name, claim):
                _remove(self.path / name, partial(eq, claim))

    def _is_own(self, claim: _Lease | None) -> bool:
        return claim is not None and claim.owner == self.owner

    def _given_up(self, name: str, claim: _Lease) -> bool:
        return gone(claim.owner) or self._stillness.of(name, claim) > LEASE


def _read(path: Path) -> _Lease | None:
    """What a claim says; None if there is none.

    Raises:
        OSError: If it cannot be read, or is not a regular file: nothing is read through a link, or waits for a pipe.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, f"{path.name} in {path.parent.name} is not a regular file; remove it")
        with path.open("rb") as file:
            return _Lease(file.read(256).decode(errors="replace"), os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _remove(path: Path, expected: Callable[[_Lease], bool]) -> None:
    """Remove a claim, unless another has taken its place since it was looked at.

    Only one of those who try can move it away. What it has moved it reads again, and puts it back if need be; if a
    third has taken the job in that moment, two are at it, which costs time and nothing else.
    """
    aside = part_of(path)
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    claim = _read(aside)
    if claim is not None and not expected(claim):
        link(aside, path)
    aside.unlink(missing_ok=True)
