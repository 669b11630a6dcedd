"""Renewal of the leases that a process holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from rollflow.bench.run.folder import ExperimentFolder
from rollflow.bench.run.leases import LEASE
from rollflow.errors import FolderError
from rollflow.files.atomic import trouble, using
from rollflow.runtime import interruption


class Heartbeat:
    """Renews the leases of this process in a thread, and gives them back at the end.

    Args:
        folder: Folder of the experiment.
        warn: Function called with the reason when renewals begin to fail; they are still tried.
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
