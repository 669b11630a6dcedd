"""The folder of an experiment: what was done, who does what, and how it was set up; made to be killed at any moment."""

from __future__ import annotations

import json
import os
import re
import socket
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rollflow.bench.run.leases import LEASE, Leases, Stillness
from rollflow.bench.run.reading import MOST_LINE, inside, parsed, text_inside
from rollflow.errors import FolderError, RollflowError
from rollflow.files.atomic import check_folder, check_outside, create, parts_of, sync, trouble, write
from rollflow.files.shared import gone

CONFIG, COMMAND, PROVENANCE = "experiment.json", "command.txt", "identities.json"
_PARTS = ("claims", "checkpoints", "images")


class ExperimentFolder:
    """Files of an experiment, shared by all processes that work on it.

    ``experiment.json`` is how it was set up, ``command.txt`` by which command, ``identities.json`` with which weights;
    ``journal-*.jsonl`` what was done, a file a process, so that no two write to one; ``claims/`` who is at which job;
    ``checkpoints/`` how far; ``images/`` what came of it.

    Args:
        path: Of the folder; made if need be.

    Attributes:
        leases: Who is at which job.

    Raises:
        FolderError: If it cannot be written to; so does every method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for part in _PARTS:
            check_folder(path / part)
        self.leases = Leases(path / "claims")
        self._stillness = Stillness()
        host = re.sub(r"[^A-Za-z0-9.]", "-", socket.gethostname())
        self._journal = path / f"journal-{host}-{self.leases.owner}.jsonl"

    def set_up(self, config: dict[str, Any], command: str | None = None, *, resume: bool = True) -> None:
        """Remember the configuration, or compare it with the one that is there.

        Args:
            config: In JSON's own types.
            command: That begins the experiment, if it is one.
            resume: Whether an experiment that is there may be gone on with.

        Raises:
            RollflowError: If the folder is another experiment's, whose differences are named; or any's, and
                ``resume`` is false.
        """
        path = self.path / CONFIG
        with using(self.path):
            begun = not path.exists() and create(path, _lines(config))
            if begun and command is not None:
                create(self.path / COMMAND, command.encode())  # a file of the user's own stays
        refuse_other(self.path, config, resume=begun or resume)

    def identify(self, identities: dict[str, Any]) -> list[str]:
        """Remember with which weights and versions the experiment is run, or compare them with those that are there.

        Args:
            identities: As of ``identities.provenance_of``.

        Returns:
            Where versions differ.

        Raises:
            RollflowError: If anything else differs, which is named, or if the file cannot be read.
        """
        path = self.path / PROVENANCE
        with using(self.path):
            if not path.exists():
                create(path, _lines(identities))
        theirs = read_provenance(self.path)
        assert theirs is not None
        other = differing(theirs, identities)
        if other:
            raise RollflowError(
                f"'{self.path}' was begun with other weights or settings: {'; '.join(other)}; "
                "go on with those, or choose another folder"
            )
        return list(_differences(theirs["versions"], identities["versions"]))

    def record(self, record: dict[str, Any]) -> None:
        """Append to the journal: on disk when this returns, and never half of it.

        A line is its own checksum and what it says; one that a kill or a full disk cut short is not a line, and what is
        written after it begins a new one.
        """
        content = json.dumps(record, allow_nan=False)
        with using(self.path), self._journal.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
            torn = end and file.read(1) != b"\n"
            file.write(b"\n" * bool(torn) + f"{zlib.crc32(content.encode()):08x} {content}\n".encode())
            file.flush()
            os.fsync(file.fileno())
            if not end:
                sync(self.path)

    def tidy(self, over: Iterable[str]) -> None:
        """Remove what killed processes have left: claims and checkpoints of jobs that are over, and temporary files.

        Nothing else is touched: other files in the folder are the user's. What cannot be removed stays.

        Args:
            over: Ids of the experiment's jobs that are done or given up.
        """
        ids = list(over)
        with suppress(OSError):
            self.leases.tidy(ids)
            for name in ids:
                if not (self.leases.path / name).exists():
                    discard(self.checkpoint(name))
            for folder in (self.path, self.leases.path, self.path / "checkpoints", self.path / "images"):
                for part in parts_of(folder):
                    if self._left(part):
                        discard(part)

    def _left(self, part: Path) -> bool:
        """Whether nobody writes a temporary file any more: its process is gone, or it has not changed for long."""
        try:
            found = part.stat()
        except FileNotFoundError:
            return False
        still = self._stillness.of(str(part), (found.st_mtime_ns, found.st_size))
        return gone(part.name) or still > LEASE

    def checkpoint(self, name: str) -> Path:
        """Where a job's checkpoint is."""
        return self.path / "checkpoints" / f"{name}.pt"

    def keep_image(self, name: str, png: bytes) -> None:
        """Write a job's picture, whole or not at all; it is on disk when this returns."""
        with using(self.path):
            write(self.path / "images", {f"{name}.png": png})


def refuse_other(path: Path, config: dict[str, Any], *, resume: bool = True) -> None:
    """Refuse a folder that an experiment cannot be run in; nothing is written, so that a dry run may ask.

    Args:
        path: Of the folder, which need not be there.
        config: Of the experiment.
        resume: Whether an experiment that is there may be gone on with.

    Raises:
        RollflowError: If the folder is another experiment's, whose differences are named; or any's, and ``resume`` is
            false; or no folder; or one whose parts lie elsewhere.
    """
    check_outside(path)
    there = next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        raise RollflowError(f"'{there}' is no folder; choose another")
    if not os.access(there, os.W_OK):
        raise RollflowError(f"cannot write to the folder '{there}'; choose another")
    for part in _PARTS:
        if not (path / part).resolve().is_relative_to(path.resolve()):
            raise RollflowError(
                f"'{path / part}' is a link to another folder, which is not written to; remove the link"
            )
    if not os.path.lexists(path / CONFIG):
        return
    if not resume:
        raise RollflowError(
            f"the folder '{path}' holds an experiment already; go on with it by --resume, or choose another folder"
        )
    differences = list(_differences(read_config(path), config))
    if differences:
        unused = not any(path.glob("journal-*.jsonl")) and not any((path / "checkpoints").glob("*.pt"))
        mend = "no job of it has ended or was saved, so that you may remove the folder; or " if unused else ""
        raise RollflowError(
            f"the folder '{path}' is of another experiment: {'; '.join(differences)}; {mend}choose another folder"
        )


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Say in words what has happened to a folder that can no longer be used.

    Raises:
        FolderError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise FolderError(trouble(folder, error)) from error


def discard(path: Path) -> None:
    """Remove a file that is of no more use, if that can be done."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def read_provenance(path: Path) -> dict[str, Any] | None:
    """With which weights and versions an experiment was begun; None where it has not been.

    Raises:
        RollflowError: If that cannot be read.
    """
    try:
        told = parsed(text_inside(path, PROVENANCE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RollflowError(f"{PROVENANCE} of '{path}' cannot be read: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("versions"), dict):
        raise RollflowError(f"{PROVENANCE} of '{path}' cannot be read: it does not say which versions were used")
    return told


def differing(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Where identities differ in more than versions."""
    return list(_differences(theirs | {"versions": None}, ours | {"versions": None}))


def read_command(path: Path) -> str | None:
    """The command that began an experiment, if it was one."""
    try:
        return text_inside(path, COMMAND).strip()
    except (OSError, ValueError):
        return None


def read_config(path: Path) -> dict[str, Any]:
    """How an experiment was set up.

    Raises:
        RollflowError: If there is none, or it cannot be read.
    """
    try:
        config = parsed(text_inside(path, CONFIG))
    except FileNotFoundError:
        raise RollflowError(f"'{path}' is no folder of 'rollflow bench run': it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise RollflowError(f"{CONFIG} of '{path}' cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise RollflowError(f"{CONFIG} of '{path}' cannot be read: expected an object, not {_short(config)}")
    return config


def any_record(line: bytes, where: str) -> dict[str, Any] | None:
    """A line of a journal, if it says which job it is of; runs look no closer."""
    try:
        record = parsed(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None


class JournalIndex:
    """What the journals of all processes say, read on from where they were read before.

    Args:
        path: Of the folder.
        check: Called with the content and the place of each line; gives the entry, or None to leave the line out.

    Attributes:
        done: The entry of every job that is done.
        failures: The errors of every one that failed, whether or not it was done later ...
        failed: ... and the last entry of each.
        diversity: The entry of every measurement of diversity.
    """

    def __init__(self, path: Path, check: Callable[[bytes, str], dict[str, Any] | None] = any_record) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, list[str]] = defaultdict(list)
        self.failed: dict[str, dict[str, Any]] = {}
        self.diversity: dict[str, dict[str, Any]] = {}
        self._path = path
        self._check = check
        self._read: dict[Path, tuple[int, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what is new; lines that a kill or a disk has cut short are passed over."""
        for journal in sorted(self._path.glob("journal-*.jsonl")):
            start, number = self._read.get(journal, (0, 0))
            with using(self._path), self._opened(journal.name) as file:
                file.seek(start)
                while (line := file.readline(MOST_LINE)).endswith(b"\n"):
                    start, number = start + len(line), number + 1
                    self._take(line.rstrip(b"\r\n"), f"{journal.name}, line {number}")
            if len(line) == MOST_LINE:
                raise RollflowError(f"'{self._path}' cannot be read: {journal.name}, line {number + 1} is too long")
            self._read[journal] = start, number

    def _opened(self, name: str) -> BinaryIO:
        try:
            return inside(self._path, name).open("rb")
        except ValueError as error:
            raise RollflowError(f"'{self._path}' cannot be read: {error}") from None

    def _take(self, line: bytes, where: str) -> None:
        checksum, _, content = line.partition(b" ")
        if not content or checksum != b"%08x" % zlib.crc32(content):
            return
        record = self._check(content, where)
        if record is not None:
            self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        if "error" in record:
            self.failures[record["id"]].append(str(record["error"]))
            self.failed[record["id"]] = record
        elif "diversity" in record:
            self.diversity.setdefault(record["id"], record)
        else:
            self.done.setdefault(record["id"], record)


def _lines(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


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
