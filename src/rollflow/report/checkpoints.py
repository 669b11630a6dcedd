"""The observer that lets a killed run go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rollflow.engine import Checkpoint, Job, Observer, save_checkpoint
from rollflow.engine.checkpoint import is_checkpoint
from rollflow.search import Finished


class CheckpointFile(Observer):
    """Keeps the checkpoint of one job in a file, until ``remove`` is called when its result is safe.

    A disk that fails does not fail the search: ``error`` says what went wrong, and nothing more is written.

    Args:
        path: Of the file.

    Attributes:
        error: Why the file could not be written; None where it could.
        written: Whether it was begun to be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | TypeError | None = None
        self.written = False
        self._ended = False

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self._ended = all(isinstance(one.state, Finished) for one in checkpoint.populations)
        if self.error is None:
            try:
                self.written = True
                save_checkpoint(job, checkpoint, self.path)
            except (OSError, TypeError) as error:
                self.error = error

    def failed(self, job: Job, error: Exception) -> None:
        if self._ended:  # to go on from there would fail in the same way
            self.remove()

    def remove(self) -> None:
        """Remove the file, if it is a checkpoint; it is needed no more, since the result is on disk.

        One that cannot be removed stays: a later run finds that its result is there.
        """
        if is_checkpoint(self.path):
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
