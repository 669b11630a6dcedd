"""Folder of an experiment: configuration, records and leases, consistent even if a process is killed."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollflow.bench.run.description import (
    COMMAND,
    CONFIG,
    PROVENANCE,
    differences,
    differing,
    encoded,
    read_config,
    read_provenance,
)
from rollflow.bench.run.journal import PATTERN, line_of
from rollflow.bench.run.leases import LEASE, Leases, Stillness
from rollflow.errors import RollflowError
from rollflow.files.atomic import check_folder, check_outside, create, discard, parts_of, sync, using, write
from rollflow.files.shared import has_ended

_PARTS = ("claims", "checkpoints", "images")


class ExperimentFolder:
    """Files of an experiment, shared by all processes that work on it.

    ``experiment.json`` holds the configuration, ``command.txt`` the command that began the experiment,
    ``identities.json`` its weights and versions; ``journal-*.jsonl`` the records, one file per process so that no two
    processes write to the same file; ``claims/`` the leases of jobs, ``checkpoints/`` their saved states, ``images/``
    their pictures.

    Args:
        path: Path of the folder, which is created if it does not exist.

    Attributes:
        leases: Leases of the jobs.

    Raises:
        FolderError: If the folder cannot be written to; raised by every method.
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
        """Write the configuration, or compare it with the existing one.

        Args:
            config: Configuration in JSON types.
            command: Command that begins the experiment, if there is one.
            resume: Whether an existing experiment may be resumed.

        Raises:
            RollflowError: If the folder belongs to another experiment (the message names the differences), or to any
                experiment and ``resume`` is false.
        """
        path = self.path / CONFIG
        with using(self.path):
            begun = not path.exists() and create(path, encoded(config))
            if begun and command is not None:
                create(self.path / COMMAND, command.encode())  # a file that the user put there is kept
        refuse_other(self.path, config, resume=begun or resume)

    def identify(self, identities: dict[str, Any]) -> list[str]:
        """Write the weights and versions that the experiment is run with, or compare them with the existing ones.

        Args:
            identities: Weights and versions, as returned by ``provenance.provenance_of``.

        Returns:
            Versions that differ.

        Raises:
            RollflowError: If anything else differs (the message names it), or if the file cannot be read.
        """
        path = self.path / PROVENANCE
        with using(self.path):
            if not path.exists():
                create(path, encoded(identities))
        theirs = read_provenance(self.path)
        assert theirs is not None
        other = differing(theirs, identities)
        if other:
            raise RollflowError(
                f"'{self.path}' was begun with other weights or settings: {'; '.join(other)}; "
                "use the original ones, or choose another folder"
            )
        return list(differences(theirs["versions"], identities["versions"]))

    def record(self, record: dict[str, Any]) -> None:
        """Append a record to the journal; it is on disk when this returns.

        A line cut short by a kill or a full disk does not match its checksum; the next record begins a new line.
        """
        line = line_of(record)
        with using(self.path), self._journal.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
            torn = end and file.read(1) != b"\n"
            file.write(b"\n" * bool(torn) + line)
            file.flush()
            os.fsync(file.fileno())
            if not end:
                sync(self.path)

    def tidy(self, over: Iterable[str]) -> None:
        """Remove the remains of killed processes: leases and checkpoints of ended jobs, and temporary files.

        Other files in the folder belong to the user and are kept, as are files that cannot be removed.

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
                    if self._abandoned(part):
                        discard(part)

    def _abandoned(self, part: Path) -> bool:
        """Return whether a temporary file's process has ended, or the file has not changed for a long time."""
        try:
            status = part.stat()
        except FileNotFoundError:
            return False
        still = self._stillness.of(str(part), (status.st_mtime_ns, status.st_size))
        return has_ended(part.name) or still > LEASE

    def checkpoint(self, name: str) -> Path:
        """Return the path of a job's checkpoint."""
        return self.path / "checkpoints" / f"{name}.pt"

    def image(self, name: str) -> Path:
        """Return the path of a job's picture."""
        return self.path / "images" / f"{name}.png"

    def keep_image(self, name: str, png: bytes) -> None:
        """Write a job's picture atomically; it is on disk when this returns."""
        with using(self.path):
            write(self.path / "images", {f"{name}.png": png})


def refuse_other(path: Path, config: dict[str, Any], *, resume: bool = True) -> None:
    """Raise an error if an experiment cannot be run in a folder; nothing is written, so that a dry run can call this.

    Args:
        path: Path of the folder, which need not exist.
        config: Configuration of the experiment.
        resume: Whether an existing experiment may be resumed.

    Raises:
        RollflowError: If the folder belongs to another experiment (the message names the differences), or to any
            experiment and ``resume`` is false; if the path is not a folder; or if parts of it are links elsewhere.
    """
    check_outside(path)
    existing = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    if not existing.is_dir():
        raise RollflowError(f"'{existing}' is not a folder; choose another path")
    if not os.access(existing, os.W_OK):
        raise RollflowError(f"cannot write to the folder '{existing}'; choose another")
    for part in _PARTS:
        if not (path / part).resolve().is_relative_to(path.resolve()):
            raise RollflowError(
                f"'{path / part}' is a link to another folder, where nothing may be written; remove the link"
            )
    if not os.path.lexists(path / CONFIG):
        return
    if not resume:
        raise RollflowError(
            f"the folder '{path}' already holds an experiment; resume it with --resume, or choose another folder"
        )
    other = list(differences(read_config(path), config))
    if other:
        unused = not any(path.glob(PATTERN)) and not any((path / "checkpoints").glob("*.pt"))
        remedy = "none of its jobs has ended or been saved, so you can remove the folder, or " if unused else ""
        raise RollflowError(
            f"the folder '{path}' belongs to another experiment: {'; '.join(other)}; {remedy}choose another folder"
        )
