"""The observer that writes checkpoints, from which a killed run can be resumed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rollflow.engine import Checkpoint, Job, Observer, save_checkpoint
from rollflow.engine.checkpoint.file import fingerprint, is_checkpoint
from rollflow.errors import RewardUnavailable
from rollflow.search import Finished


class CheckpointFile(Observer):
    """Keeps the checkpoint of one job in a file until ``remove`` is called, once its result is safe.

    If a search fails at its end without a sample that can be chosen, its checkpoint is removed.

    A disk error does not fail the search: it is kept as ``error``, and no more checkpoints are written.

    Args:
        path: Path of the checkpoint file.

    Attributes:
        error: Error that stopped the writing of checkpoints; None if there was none.
        written: Whether writing a checkpoint has begun.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | TypeError | None = None
        self.written = False
        self._is_hopeless = False
        self._fingerprint: dict[str, str] | None = None

    def admitted(self, job: Job) -> None:
        self._fingerprint = None
        self._is_hopeless = job.resume is not None and _is_hopeless(job.resume)

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self._is_hopeless = _is_hopeless(checkpoint)
        if self.error is None:
            try:
                self.written = True
                self._fingerprint = self._fingerprint or fingerprint(job)  # once: it may digest the weights
                save_checkpoint(job, checkpoint, self.path, self._fingerprint)
            except (OSError, TypeError) as error:
                self.error = error

    def failed(self, job: Job, error: Exception) -> None:
        if self._is_hopeless and not isinstance(error, RewardUnavailable):
            self.remove()

    def remove(self) -> None:
        """Remove the file if it is a checkpoint; call this once the result is on disk.

        A file that cannot be removed does no harm: a later run sees that its result exists.
        """
        if is_checkpoint(self.path):
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def _is_hopeless(checkpoint: Checkpoint) -> bool:
    """Whether a search has ended without a sample, so that resuming it would fail in the same way."""
    return all(isinstance(one.state, Finished) and one.best is None for one in checkpoint.populations)
