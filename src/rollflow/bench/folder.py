"""The folder of an experiment: what was done, who does what, and how it was set up; made to be killed at any moment."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollflow.errors import RollflowError
from rollflow.report.outputs import check_folder, write

CONFIG, COMMAND = "experiment.json", "command.txt"
LEASE = 120.0
"""Seconds without a sign of life after which a claim of a process on another machine is given up."""


class Folder:
    """Files of an experiment, shared by all processes that work on it.

    ``experiment.json`` is how it was set up, ``command.txt`` by which command; ``journal-*.jsonl`` what was done, a
    file a process, so that no two write to one; ``claims/`` who is at which job; ``checkpoints/`` how far; ``images/``
    what came of it.

    Args:
        path: Of the folder; made if need be.

    Raises:
        RollflowError: If it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for part in ("claims", "checkpoints", "images"):
            check_folder(path / part)
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._journal = path / f"journal-{self._me.replace(':', '-')}.jsonl"

    def set_up(self, config: dict[str, Any], command: str | None = None) -> None:
        """Remember the configuration, or compare it with the one that is there.

        Args:
            config: In JSON's own types.
            command: That begins the experiment, if it is one.

        Raises:
            RollflowError: If the folder is another experiment's, whose differences are named.
        """
        mine = json.dumps(config, indent=1) + "\n"
        if not (self.path / CONFIG).exists():
            write(self.path, {CONFIG: mine.encode()} | ({} if command is None else {COMMAND: command.encode()}))
        theirs = read_config(self.path)
        differences = list(_differences(theirs, config))
        if differences:
            raise RollflowError(
                f"the folder '{self.path}' is of another experiment: {'; '.join(differences)}; choose another folder"
            )

    def record(self, entry: dict[str, Any]) -> None:
        """Append to the journal: on disk when this returns, and never half of it.

        A line is its own checksum and what it says; one that a kill cut short is not a line.
        """
        content = json.dumps(entry, allow_nan=False)
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(f"{zlib.crc32(content.encode()):08x} {content}\n")
            file.flush()
            os.fsync(file.fileno())

    def claim(self, name: str) -> bool:
        """Take a job for this process; False if another has it.

        A claim whose process is gone, or has given no sign of life for ``LEASE`` seconds, is taken over.
        """
        path = self.path / "claims" / name
        for _ in range(2):
            try:
                with path.open("x") as file:
                    file.write(self._me)
                return True
            except FileExistsError:
                if not self._given_up(path):
                    return False
                aside = path.with_name(f".{name}-{uuid.uuid4().hex}")
                with suppress(FileNotFoundError):  # only one of those who try can move it away
                    os.rename(path, aside)
                    aside.unlink(missing_ok=True)
        return False

    def _given_up(self, path: Path) -> bool:
        try:
            owner, seen = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:
            return True
        host, _, rest = owner.partition(":")
        process = rest.partition(":")[0]
        if host == socket.gethostname() and process.isdecimal() and not _alive(int(process)):
            return True
        return time.time() - seen > LEASE

    def tidy(self, done: Collection[str]) -> None:
        """Remove what a process that was killed has left of jobs that are done."""
        for path in (self.path / "claims").iterdir():
            if path.name in done and self._given_up(path):
                path.unlink(missing_ok=True)
        for path in (self.path / "checkpoints").iterdir():
            if path.stem in done:
                path.unlink(missing_ok=True)

    def alive(self, names: list[str]) -> None:
        """A sign of life for jobs of this process."""
        for name in names:
            with suppress(FileNotFoundError):
                os.utime(self.path / "claims" / name)

    def release(self, name: str) -> None:
        """Give a job back."""
        (self.path / "claims" / name).unlink(missing_ok=True)

    def checkpoint(self, name: str) -> Path:
        """Where a job's checkpoint is."""
        return self.path / "checkpoints" / f"{name}.pt"

    def keep_image(self, name: str, png: bytes) -> None:
        """Write a job's picture, whole or not at all."""
        write(self.path / "images", {f"{name}.png": png})


def read_command(path: Path) -> str | None:
    """The command that began an experiment, if it was one."""
    try:
        return (path / COMMAND).read_text().strip()
    except OSError:
        return None


def read_config(path: Path) -> dict[str, Any]:
    """How an experiment was set up.

    Raises:
        RollflowError: If there is none, or it cannot be read.
    """
    try:
        config: dict[str, Any] = json.loads((path / CONFIG).read_text())
    except FileNotFoundError:
        raise RollflowError(f"'{path}' is no folder of 'rollflow bench run': it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise RollflowError(f"{CONFIG} of '{path}' cannot be read: {error}") from error
    return config


class Tally:
    """What the journals of all processes say, read on from where they were read before.

    Args:
        path: Of the folder.

    Attributes:
        done: The entry of every job that is done.
        failures: The errors of every one that failed, whether or not it was done later ...
        failed: ... and the last entry of each.
    """

    def __init__(self, path: Path) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, list[str]] = defaultdict(list)
        self.failed: dict[str, dict[str, Any]] = {}
        self._path = path
        self._read: dict[Path, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what is new; lines that a kill or a disk has cut short are passed over."""
        for journal in sorted(self._path.glob("journal-*.jsonl")):
            with journal.open("rb") as file:
                file.seek(self._read.get(journal, 0))
                new = file.read()
            whole = new.rfind(b"\n") + 1
            self._read[journal] = self._read.get(journal, 0) + whole
            for line in new[:whole].splitlines():
                checksum, _, content = line.partition(b" ")
                if content and checksum == b"%08x" % zlib.crc32(content):
                    self._note(json.loads(content))

    def _note(self, entry: dict[str, Any]) -> None:
        if "error" in entry:
            self.failures[entry["id"]].append(entry["error"])
            self.failed[entry["id"]] = entry
        else:
            self.done.setdefault(entry["id"], entry)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in dict.fromkeys([*theirs, *ours]):
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for i, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _differences(*pair, f"{name}[{i}]")
    elif theirs != ours:
        yield f"{name} was {_short(theirs)}, is {_short(ours)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
