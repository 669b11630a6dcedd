"""Leases of jobs: files that only one process can create, and that others take over when that process has ended."""

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
from rollflow.files.shared import has_ended, mark

LEASE = 120.0
"""Seconds without renewal after which a lease expires if its process may still be running."""


class _Lease(NamedTuple):
    """Content of a lease.

    Args:
        owner: Mark of the process that holds it.
        seen: Time of the last renewal, in nanoseconds of the file system's clock.
    """

    owner: str
    seen: int


class Stillness:
    """Measures how long values have stayed unchanged while this process watched, by its own monotonic clock.

    Jumping clocks (of a suspended machine, a clock that is set, a file server) do not matter: time stamps are only
    compared with each other, never with a clock.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[Hashable, float]] = {}

    def of(self, name: str, value: Hashable) -> float:
        """Return the seconds since ``name`` was first seen with its present value."""
        now = time.monotonic()
        known = self._since.get(name)
        if known is None or known[0] != value:
            known = self._since[name] = value, now
        return now - known[1]


class Leases:
    """The leases in a folder, for a process that takes jobs.

    Args:
        path: Folder with one file per lease.

    Attributes:
        owner: Mark of this process, written into its leases.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, mark()
        self._stillness = Stillness()

    def take(self, name: str) -> bool:
        """Take a job; return False if another process has it.

        A lease is taken over if its process has ended, or if this process has watched it for ``LEASE`` seconds without
        a renewal.
        """
        path = self.path / name
        for _ in range(3):
            if create(path, self.owner.encode(), durable=False):
                return True
            lease = _read(path)
            if lease is None:
                continue  # given back just now
            if not self._abandoned(name, lease):
                return False
            _remove(path, partial(eq, lease))
        return False

    def renew(self, names: Iterable[str]) -> None:
        """Renew the leases of jobs that this process still holds.

        Raises:
            OSError: If a lease cannot be renewed.
        """
        for name in names:
            if self._is_own(_read(self.path / name)):
                with suppress(FileNotFoundError):
                    os.utime(self.path / name)

    def give_back(self, name: str) -> None:
        """Give a job back, if this process still holds it."""
        if self._is_own(_read(self.path / name)):
            _remove(self.path / name, self._is_own)

    def tidy(self, names: Iterable[str]) -> None:
        """Remove the abandoned leases of these jobs."""
        for name in set(names) & set(os.listdir(self.path)):
            lease = _read(self.path / name)
            if lease is not None and self._abandoned(name, lease):
                _remove(self.path / name, partial(eq, lease))

    def _is_own(self, lease: _Lease | None) -> bool:
        return lease is not None and lease.owner == self.owner

    def _abandoned(self, name: str, lease: _Lease) -> bool:
        return has_ended(lease.owner) or self._stillness.of(name, lease) > LEASE


def _read(path: Path) -> _Lease | None:
    """Read a lease; return None if there is none.

    Raises:
        OSError: If it cannot be read, or is not a regular file: links are not followed, and pipes are not waited for.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, f"{path.name} in {path.parent.name} is not a regular file; remove it")
        with path.open("rb") as file:
            return _Lease(file.read(256).decode(errors="replace"), os.fstat(file.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _remove(path: Path, expected: Callable[[_Lease], bool]) -> None:
    """Remove a lease, unless another one has replaced it since it was read.

    Only one process can move the file away. It then reads the moved file again, and restores it if it is not the
    expected one; if a third process has taken the job meanwhile, two of them run it, which costs only time.
    """
    aside = part_of(path)
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    lease = _read(aside)
    if lease is not None and not expected(lease):
        link(aside, path)
    aside.unlink(missing_ok=True)
