"""The folder of an experiment: what was done, who does what, and how it was set up; made to be killed at any moment."""

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
from rollflow.files.shared import gone

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
            begun = not path.exists() and create(path, encoded(config))
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
                create(path, encoded(identities))
        theirs = read_provenance(self.path)
        assert theirs is not None
        other = differing(theirs, identities)
        if other:
            raise RollflowError(
                f"'{self.path}' was begun with other weights or settings: {'; '.join(other)}; "
                "go on with those, or choose another folder"
            )
        return list(differences(theirs["versions"], identities["versions"]))

    def record(self, record: dict[str, Any]) -> None:
        """Append to the journal; the record is on disk when this returns.

        A line that a kill or a full disk has cut short does not fit its checksum; the next record begins a new one.
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
    other = list(differences(read_config(path), config))
    if other:
        unused = not any(path.glob(PATTERN)) and not any((path / "checkpoints").glob("*.pt"))
        mend = "no job of it has ended or was saved, so that you may remove the folder; or " if unused else ""
        raise RollflowError(
            f"the folder '{path}' is of another experiment: {'; '.join(other)}; {mend}choose another folder"
        )
