"""Experiments on disk, as folders or packed files, with every value checked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.bench.run import packed
from rollflow.bench.run.description import CONFIG, PROVENANCE, read_command, read_config, read_provenance
from rollflow.bench.run.journal import JournalIndex, RecordIndex, check_size
from rollflow.bench.run.reading import checked_config, checked_provenance, checked_record
from rollflow.errors import RollflowError, RollflowWarning
from rollflow.files.printable import printable


@dataclass(frozen=True)
class StoredExperiment:
    """Content of a folder or a packed file, which need not be trusted.

    Args:
        path: Path of the folder or file.
        config: Configuration, checked.
        command: Command that began the experiment; None if it was begun from Python.
        index: Records of the jobs, checked.
        head: Head of a packed file; None for a folder.
    """

    path: Path
    config: dict[str, Any]
    command: str | None
    index: RecordIndex
    head: packed.Head | None = None

    @property
    def name(self) -> str:
        """Name of the folder, or of the file without its suffix."""
        name = self.path.resolve().name
        return printable(name if self.head is None else name.removesuffix(packed.SUFFIX))

    @property
    def pictures(self) -> Path | None:
        """Folder that contains ``images/``; None for a packed file, which has no pictures."""
        return self.path if self.head is None else None

    def provenance(self) -> dict[str, Any] | None:
        """Return the weights and versions that the experiment was begun with; None if they are not recorded.

        Raises:
            RollflowError: If they cannot be read.
        """
        content = read_provenance(self.path) if self.head is None else self.head.provenance
        return None if content is None else checked_provenance(content, f"{PROVENANCE} of '{self.path}'")


def read_stored(path: Path) -> StoredExperiment:
    """Read an experiment; records whose ids are not those of jobs are skipped with a warning.

    Args:
        path: A folder of ``rollflow bench run`` or a file of ``rollflow bench pack``.

    Raises:
        RollflowError: If it is neither, or anything in it is malformed.
    """
    if path.is_dir() or not path.exists():
        config = checked_config(read_config(path), f"{CONFIG} of '{path}'")
        check_size(path)
        checks = _Checks(path, config)
        index: RecordIndex = JournalIndex(path, checks.record)
        checks.warn()
        return StoredExperiment(path, config, read_command(path), index)
    lines = iter(packed.unpacked(path))
    head = packed.head_of(next(lines, b""), path)
    config = checked_config(head.config, f"the configuration in '{path}'")
    checks, index = _Checks(path, config), RecordIndex()
    for number, line in enumerate(lines, 2):
        record = checks.record(line, f"line {number}")
        if record is not None:
            index.add(record)
        else:
            packed.refuse_head(line, f"line {number} of '{path}'")
    checks.warn()
    return StoredExperiment(path, config, head.command, index, head)


class Packed(NamedTuple):
    """A packed experiment.

    Args:
        content: Content of the file.
        records: Records in the file.
        jobs: Number of jobs of the experiment, finished or not.
    """

    content: bytes
    records: RecordIndex
    jobs: int


def pack(folder: Path) -> Packed:
    """Pack a folder without its pictures, which ``rollflow replay`` can make again.

    A folder whose experiment is running or was stopped can be packed, too; the file holds the jobs that have ended.

    Raises:
        RollflowError: If it is not a folder of ``rollflow bench run``, is too large, or anything in it is malformed.
    """
    if folder.is_file():
        raise RollflowError(f"'{folder}' is a file; expected a folder of 'rollflow bench run'")
    config = checked_config(read_config(folder), f"{CONFIG} of '{folder}'")
    checks, lines = _Checks(folder, config), list[bytes]()

    def keep(line: bytes, where: str) -> dict[str, Any] | None:
        record = checks.record(line, where)
        if record is not None:
            lines.append(line)
        return record

    check_size(folder)
    index = JournalIndex(folder, keep)
    checks.warn()
    stored = StoredExperiment(folder, config, read_command(folder), index)
    content = packed.packed(packed.Head(config, stored.provenance(), stored.command), lines)
    return Packed(content, index, config["suite"]["prompts"] * config["seeds"] * len(config["arms"]))


class _Checks:
    """Checks the records of one experiment and counts those that are skipped."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self._path, self._arms = path, {arm["name"] for arm in config["arms"]}
        self._skipped, self._first_skipped = 0, ""

    def record(self, line: bytes, where: str) -> dict[str, Any] | None:
        record = checked_record(line, self._arms, f"{where}, of '{self._path}'")
        if record is None:
            self._first_skipped = self._first_skipped or where
            self._skipped += 1
        return record

    def warn(self) -> None:
        if self._skipped:
            warnings.warn(
                f"skipped {self._skipped} records of '{self._path}' whose ids are not those of jobs; the first is "
                f"{self._first_skipped}",
                RollflowWarning,
                stacklevel=3,
            )
