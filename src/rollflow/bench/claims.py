"""Who is at which job: files that one process alone can make, and that others take over when it is gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from operator import eq
from pathlib import Path
from typing import NamedTuple

from rollflow.sharing import create, gone, link, mark

LEASE = 120.0
"""Seconds without a sign of life after which a claim is given up whose process is not certain to be gone."""


class _Claim(NamedTuple):
    """What a claim says: whose it is, and when that one last gave a sign of life, in nanoseconds."""

    owner: str
    seen: int


class Claims:
    """The claims in a folder, for one who takes jobs.

    Args:
        path: Of the folder.

    Attributes:
        owner: Its mark, which is what its claims hold.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, mark()

    def take(self, name: str) -> bool:
        """Take a job; False if another has it.

        A claim whose process is gone, or has given no sign of life for ``LEASE`` seconds, is taken over.
        """
        path = self.path / name
        for _ in range(3):
            if create(path, self.owner.encode()):
                return True
            claim = _read(path)
            if claim is None:
                continue  # given back just now
            if not self._given_up(claim):
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

    def tidy(self, names: Callable[[str], bool]) -> None:
        """Remove claims of such names that are given up."""
        for path in self.path.iterdir():
            if not path.name.startswith(".") and names(path.name):
                claim = _read(path)
                if claim is not None and self._given_up(claim):
                    _remove(path, partial(eq, claim))

    def now(self) -> float:
        """The time by the clock of whoever stamps the folder's files, which need not be this machine's."""
        return clock(self.path)

    def _is_own(self, claim: _Claim | None) -> bool:
        return claim is not None and claim.owner == self.owner

    def _given_up(self, claim: _Claim) -> bool:
        return gone(claim.owner) or self.now() - claim.seen / 1e9 > LEASE


def clock(folder: Path) -> float:
    """The time that a file which is written to a folder now is stamped with."""
    probe = folder / f".{mark()}.clock"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _read(path: Path) -> _Claim | None:
    try:
        return _Claim(path.read_text(), path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def _remove(path: Path, expected: Callable[[_Claim], bool]) -> None:
    """Remove a claim, unless another has taken its place since it was looked at.

    Only one of those who try can move it away. What it has moved it reads again, and puts it back if need be; if a
    third has taken the job in that moment, two are at it, which costs time and nothing else.
    """
    aside = path.with_name(f".{path.name}-{mark()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    claim = _read(aside)
    if claim is not None and not expected(claim):
        link(aside, path)
    aside.unlink(missing_ok=True)
