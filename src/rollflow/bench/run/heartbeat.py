"""What runs beside the jobs of an experiment: their checkpoints and heartbeats."""

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
from rollflow.engine.checkpoint import fingerprint
from rollflow.errors import FolderError
from rollflow.files.atomic import trouble, using
from rollflow.runtime import interruption
from rollflow.search import Progress


class _Step(NamedTuple):
    """What a population spent on a step, and the parent of each particle; None is its own row."""

    nfe: int
    parents: list[int] | None


class JobObserver(Observer):
    """Observes jobs: saves their checkpoints from time to time, and keeps what their records need beside the result.

    A disk that fails does not fail the jobs: ``warn`` is called, once, and it is tried again when the next is due.

    Args:
        folder: Folder for the checkpoints.
        every: Seconds between two checkpoints of one job.
        warn: Called with what went wrong.
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
        """Whether a job has made a step since it was begun or resumed."""
        return id(job) in self._latest

    def save_all(self) -> None:
        """Write a checkpoint of every job that is watched, now; one that Ctrl-C interrupts is written once more."""
        for job, checkpoint in list(self._latest.values()):
            try:
                self._save(job, checkpoint)
            except KeyboardInterrupt:
                self._save(job, checkpoint)

    def account(self, job: Job) -> dict[str, Any]:
        """What each population spent on each step and, where particles were drawn anew, from whom.

        Of a job that was resumed only the steps since then are known; which they are is told, too.
        """
        populations = [[(step, steps[step]) for step in sorted(steps)] for steps in self._steps.get(id(job), [])]
        told: dict[str, Any] = {"quota": [[step.nfe for _, step in steps] for steps in populations]}
        if any(step.parents for steps in populations for _, step in steps):
            told["ancestors"] = [[step.parents for _, step in steps] for steps in populations]
        if job.resume is not None:
            told |= {"resumed": True, "steps": [[number for number, _ in steps] for steps in populations]}
        return told

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
                self.warn(f"a checkpoint could not be written, without which a killed job starts again: {why}")
            self._failing = True
        else:
            self._failing = False


class Heartbeat:
    """Renews the leases of this process in a thread of its own, and gives them back at the end.

    Args:
        folder: Folder of the experiment.
        warn: Called, once, when a heartbeat fails; later ones are given all the same.

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
                self._leases.alive(list(self.names))
            except OSError as error:
                if not failing:
                    why = trouble(self._path, error)
                    self._warn(f"a heartbeat failed, without which other processes take jobs over: {why}")
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
        """Let go of a job.

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
            with suppress(FolderError):  # a claim that stays behind is taken over, as its process is gone
                self.give_back(name)
