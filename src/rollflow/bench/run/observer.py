"""Observer of the jobs of an experiment, which saves their checkpoints, and resumption from these."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.bench.run.folder import ExperimentFolder
from rollflow.engine import Checkpoint, Job, Observer, load_checkpoint, save_checkpoint
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.files.atomic import discard, trouble
from rollflow.runtime.numbering import Numbering
from rollflow.search import Progress


class _Step(NamedTuple):
    """A step of a population.

    Args:
        nfe: NFE spent on this step.
        parents: Row of each particle's parent in the step before; None if each row continues.
    """

    nfe: int
    parents: list[int] | None


class JobObserver(Observer):
    """Saves checkpoints of jobs periodically, and collects what their records need in addition to the result.

    A disk that fails does not fail the jobs: ``warn`` is called once, and the next checkpoint is tried when it is due.

    Args:
        folder: Folder for the checkpoints.
        every: Seconds between two checkpoints of a job.
        warn: Function called with a description of what went wrong.
    """

    def __init__(self, folder: ExperimentFolder, every: float, warn: Callable[[str], None]) -> None:
        self.folder, self.every, self.warn = folder, every, warn
        self._numbering = Numbering()
        self._names: dict[int, str] = {}
        self._steps: dict[int, list[dict[int, _Step]]] = {}
        self._saved: dict[int, float] = {}
        self._latest: dict[int, tuple[Job, Checkpoint]] = {}
        self._of: dict[int, dict[str, str]] = {}
        self._failing = False

    def id_of(self, job: Job) -> int:
        """Return the id of a job, which no other job has."""
        return self._numbering.id_of(job)

    def begin(self, job: Job, name: str) -> None:
        """Begin to observe a job."""
        self._names[self.id_of(job)] = name

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        populations = self._steps.setdefault(self.id_of(job), [])
        while len(populations) <= population:
            populations.append({})
        parents = None if progress.ancestors is None else progress.ancestors.tolist()
        populations[population][progress.step] = _Step(progress.nfe_spent, parents)

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self._latest[self.id_of(job)] = job, checkpoint
        now = time.monotonic()
        if now - self._saved.setdefault(self.id_of(job), now) >= self.every:
            self._save(job, checkpoint)
            self._saved[self.id_of(job)] = now

    def has_moved(self, job: Job) -> bool:
        """Return whether a job has completed a step since it was begun or resumed."""
        return self.id_of(job) in self._latest

    def save_all(self) -> None:
        """Write a checkpoint of every observed job now; one that Ctrl-C interrupts is written again."""
        for job, checkpoint in list(self._latest.values()):
            try:
                self._save(job, checkpoint)
            except KeyboardInterrupt:
                self._save(job, checkpoint)

    def account(self, job: Job) -> dict[str, Any]:
        """Return the NFE of each population by step and, where particles were resampled, their ancestors.

        Of a resumed job only the steps since it was resumed are known; the result includes their numbers.
        """
        known = self._steps.get(self.id_of(job), [])
        populations = [[(step, steps[step]) for step in sorted(steps)] for steps in known]
        account: dict[str, Any] = {"quota": [[step.nfe for _, step in steps] for steps in populations]}
        if any(step.parents for steps in populations for _, step in steps):
            account["ancestors"] = [[step.parents for _, step in steps] for steps in populations]
        if job.resume is not None:
            account |= {"resumed": True, "quota_steps": [[number for number, _ in steps] for steps in populations]}
        return account

    def forget(self, job: Job) -> None:
        """Stop observing a job."""
        for kept in (self._names, self._saved, self._latest, self._steps, self._of):
            kept.pop(self.id_of(job), None)

    def _save(self, job: Job, checkpoint: Checkpoint) -> None:
        try:
            of = self._of.get(self.id_of(job)) or self._of.setdefault(self.id_of(job), fingerprint(job))
            save_checkpoint(job, checkpoint, self.folder.checkpoint(self._names[self.id_of(job)]), of)
        except (OSError, TypeError) as error:
            if not self._failing:
                why = trouble(self.folder.path, error) if isinstance(error, OSError) else error
                self.warn(f"a checkpoint could not be written, so that a killed job would start over: {why}")
            self._failing = True
        else:
            self._failing = False


def resumed(job: Job, path: Path, warn: Callable[[str], None]) -> Job:
    """Return a job that continues from its checkpoint; one that cannot be used is discarded.

    Args:
        job: Job to resume.
        path: Path of the checkpoint, which need not exist.
        warn: Function called with the reason if the checkpoint cannot be used.
    """
    if not path.exists():
        return job
    try:
        continued = replace(job, resume=load_checkpoint(job, path))
        continued.populations()
    except Exception as error:  # whatever is wrong with it, the job can run without
        warn(f"a checkpoint cannot be used, so its job starts again: {error}")
        discard(path)
        return job
    return continued
