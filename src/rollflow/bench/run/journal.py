"""Journals of an experiment: lines of JSON, each after its checksum, and an index of their records."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from rollflow.bench.run.reading import MOST_LINE, inside, parsed
from rollflow.errors import RollflowError
from rollflow.files.atomic import using

PATTERN = "journal-*.jsonl"
MOST_JOURNALS = 1 << 30
"""Largest size of all journals of a folder together, in bytes."""


def line_of(record: dict[str, Any]) -> bytes:
    """Return a record as a line of a journal: the CRC-32 of its JSON, a space, and the JSON."""
    content = json.dumps(record, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def check_size(folder: Path) -> None:
    """Raise a RollflowError if the journals of a folder are too large for memory."""
    total = sum(path.stat().st_size for path in folder.glob(PATTERN))
    if total > MOST_JOURNALS:
        raise RollflowError(f"the journals of '{folder}' have {total:,} bytes; at most {MOST_JOURNALS:,} can be read")


def any_record(line: bytes, where: str) -> dict[str, Any] | None:
    """Return a line's record if it has a job's id, without further checks, for a running experiment; else None."""
    try:
        record = parsed(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None


class RecordIndex:
    """Records of an experiment by the id of their job.

    Attributes:
        done: Record of every finished job.
        failures: Errors of every job that failed, even if it finished later.
        failed: Last failure record of every such job.
        diversity: Record of every measurement of diversity.
        rounds: Record of every finished round of a pooled job, by the id of the round.
    """

    def __init__(self) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, list[str]] = defaultdict(list)
        self.failed: dict[str, dict[str, Any]] = {}
        self.diversity: dict[str, dict[str, Any]] = {}
        self.rounds: dict[str, dict[str, Any]] = {}

    def add(self, record: dict[str, Any]) -> None:
        """Add a record; if a job was done twice, the first record is kept."""
        if "error" in record:
            self.failures[record["id"]].append(str(record["error"]))
            self.failed[record["id"]] = record
        elif "diversity" in record:
            self.diversity.setdefault(record["id"], record)
        elif "round" in record:
            self.rounds.setdefault(record["id"], record)
        else:
            self.done.setdefault(record["id"], record)


class JournalIndex(RecordIndex):
    """Index of the journals of all processes that work in a folder; each refresh continues where the last one ended.

    Args:
        folder: Folder of the experiment.
        check: Function of the content and the location of a line that returns its record, or None to omit it.
    """

    def __init__(self, folder: Path, check: Callable[[bytes, str], dict[str, Any] | None] = any_record) -> None:
        super().__init__()
        self._folder = folder
        self._check = check
        self._read: dict[Path, tuple[int, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the new lines; lines cut short by a kill or a full disk are skipped."""
        for journal in sorted(self._folder.glob(PATTERN)):
            start, number = self._read.get(journal, (0, 0))
            with using(self._folder), self._opened(journal.name) as file:
                file.seek(start)
                while (line := file.readline(MOST_LINE)).endswith(b"\n"):
                    start, number = start + len(line), number + 1
                    self._take(line.rstrip(b"\r\n"), f"{journal.name}, line {number}")
            if len(line) == MOST_LINE:
                raise RollflowError(f"'{self._folder}' cannot be read: {journal.name}, line {number + 1} is too long")
            self._read[journal] = start, number

    def _opened(self, name: str) -> BinaryIO:
        try:
            return inside(self._folder, name).open("rb")
        except ValueError as error:
            raise RollflowError(f"'{self._folder}' cannot be read: {error}") from None

    def _take(self, line: bytes, where: str) -> None:
        checksum, _, content = line.partition(b" ")
        if not content or checksum != b"%08x" % zlib.crc32(content):
            return
        record = self._check(content, where)
        if record is not None:
            self.add(record)
