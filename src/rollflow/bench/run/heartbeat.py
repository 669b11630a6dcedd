"""Checkpoints and lease renewals of the jobs of an experiment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from rollflow.bench.run.folder import ExperimentFolder
from rollflow.bench.run.leases import LEASE
from rollflow.engine import Checkpoint, Job, Observer, save_checkpoint
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.errors import FolderError
from rollflow.files.atomic import trouble, using
from rollflow.runtime import interruption
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
    """Saves checkpoints of jobs periodically, and collects what their records need beside the result.

    A disk that fails does not fail the jobs: ``warn`` is called once, and the next checkpoint is tried when it is due.

    Args:
        folder: Folder for the checkpoints.
        every: Seconds between two checkpoints of a job.
        warn: Function called with a description of what went wrong.
    """

    def __init__(self, folder: ExperimentFolder, every: float, warn: Callable[[str], None]) -> None:
        self.folder, self.every, self.warn = folder, every, warn
        self._names: dict[int, str] = {}
        self._steps: dict[int, list[dict[int, _Step]]] = {}
        self._saved: dict[int, float] = {}
        self._latest: dict[int, tuple[Job, Checkpoint]] = {}
        self._of: dict[int, dict[str, str]] = {}
        self._failing = False

    def begin(self, job: Job, name: str) -> None:
        """Begin to observe a job."""
        self._names[id(job)] = name

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        populations = self._steps.setdefault(id(job), [])
        while len(populations) <= population:
            populations.append({})
        parents = None if progress.ancestors is None else progress.ancestors.tolist()
        populations[population][progress.step] = _Step(progress.nfe_spent, parents)

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self._latest[id(job)] = job, checkpoint
        now = time.monotonic()
        if now - self._saved.setdefault(id(job), now) >= self.every:
            self._save(job, checkpoint)
            self._saved[id(job)] = now

    def has_moved(self, job: Job) -> bool:
        """Return whether a job has completed a step since it was begun or resumed."""
        return id(job) in self._latest

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
        populations = [[(step, steps[step]) for step in sorted(steps)] for steps in self._steps.get(id(job), [])]
        account: dict[str, Any] = {"quota": [[step.nfe for _, step in steps] for steps in populations]}
        if any(step.parents for steps in populations for _, step in steps):
            account["ancestors"] = [[step.parents for _, step in steps] for steps in populations]
        if job.resume is not None:
            account |= {"resumed": True, "quota_steps": [[number for number, _ in steps] for steps in populations]}
        return account

    def forget(self, job: Job) -> None:
        """Stop observing a job."""
        for kept in (self._names, self._saved, self._latest, self._steps, self._of):
            kept.pop(id(job), None)

    def _save(self, job: Job, checkpoint: Checkpoint) -> None:
        try:
            of = self._of.get(id(job)) or self._of.setdefault(id(job), fingerprint(job))
            save_checkpoint(job, checkpoint, self.folder.checkpoint(self._names[id(job)]), of)
        except (OSError, TypeError) as error:
            if not self._failing:
                why = trouble(self.folder.path, error) if isinstance(error, OSError) else error
                self.warn(f"a checkpoint could not be written, so that a killed job would start over: {why}")
            self._failing = True
        else:
            self._failing = False


class Heartbeat:
    """Renews the leases of this process in a thread of its own, and gives them back at the end.

    Args:
        folder: Folder of the experiment.
        warn: Function called when a renewal fails, once until one succeeds; later renewals are still tried.
        every: Seconds between renewals.

    Attributes:
        names: Ids of the jobs that this process works on.
    """

    def __init__(self, folder: ExperimentFolder, warn: Callable[[str], None], every: float = LEASE / 8) -> None:
        self._path, self._leases = folder.path, folder.leases
        self._warn, self._every, self.names = warn, every, set[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        failing = False
        while not self._stop.wait(self._every):
            try:
                self._leases.renew(list(self.names))
            except OSError as error:
                if not failing:
                    why = trouble(self._path, error)
                    self._warn(f"leases could not be renewed, so that other processes may take over jobs: {why}")
                failing = True
            else:
                failing = False

    def take(self, name: str) -> bool:
        """Take a job and renew its lease from now on; return False if another process has it.

        Raises:
            FolderError: If the folder cannot be used any more.
        """
        with using(self._path):
            taken = self._leases.take(name)
        if taken:
            self.names.add(name)
        return taken

    def give_back(self, name: str) -> None:
        """Give a job back.

        Raises:
            FolderError: If the folder cannot be used any more.
        """
        self.names.discard(name)
        with using(self._path):
            self._leases.give_back(name)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            interruption.wind_up()
        self._stop.set()
        for name in list(self.names):
            with suppress(FolderError):  # a lease that stays is taken over once this process has ended
                self.give_back(name)
