"""The observer that lets a killed run go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rollflow.engine import Checkpoint, Job, Observer, save_checkpoint
from rollflow.engine.checkpoint import fingerprint, is_checkpoint
from rollflow.errors import RewardUnavailable
from rollflow.search import Finished


class CheckpointFile(Observer):
    """Keeps the checkpoint of one job in a file, until ``remove`` is called when its result is safe.

    Of a search that has failed at its end, with no sample that can be chosen, nothing is kept.

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
        self._in_vain = False
        self._of: dict[str, str] | None = None

    def admitted(self, job: Job) -> None:
        self._of = None
        self._in_vain = job.resume is not None and _in_vain(job.resume)

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self._in_vain = _in_vain(checkpoint)
        if self.error is None:
            try:
                self.written = True
                self._of = self._of or fingerprint(job)  # once: it may digest the weights
                save_checkpoint(job, checkpoint, self.path, self._of)
            except (OSError, TypeError) as error:
                self.error = error

    def failed(self, job: Job, error: Exception) -> None:
        if self._in_vain and not isinstance(error, RewardUnavailable):
            self.remove()

    def remove(self) -> None:
        """Remove the file, if it is a checkpoint; it is needed no more, since the result is on disk.

        One that cannot be removed stays: a later run finds that its result is there.
        """
        if is_checkpoint(self.path):
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def _in_vain(checkpoint: Checkpoint) -> bool:
    """Whether a search has come to its end without a sample: to go on from there fails in the same way."""
    return all(isinstance(one.state, Finished) and one.best is None for one in checkpoint.populations)
