"""Protection against computing in a fork of a process that has already computed.

A fork has none of torch's worker threads and would wait for them forever; a lock held by another thread at the time of
the fork stays locked.
"""

from __future__ import annotations

import os

import torch

from rollflow.errors import RollflowError

MEND = "start workers with multiprocessing.get_context('spawn'), and load it in each of them"

_computing: int | None = None
"""Id of the process that computed first: this process, or one that it was forked from."""


class Home:
    """The process in which an object was loaded; forks of the process cannot use the object.

    After unpickling, it is the process that unpickled it.

    Args:
        what: Name of the object in errors.

    Raises:
        RollflowError: In a fork of a process that has loaded something, unless torch uses a single thread.
    """

    def __init__(self, what: str) -> None:
        global _computing
        self._what, self._process = what, os.getpid()
        if _computing not in (None, self._process) and torch.get_num_threads() > 1:
            raise RollflowError(
                f"{what} cannot be loaded in a fork of a process that has used models, since torch's threads do not "
                f"exist there; {MEND}, or call torch.set_num_threads(1) first"
            )
        _computing = self._process

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self._what,)

    def check(self) -> None:
        """Raise a RollflowError in any other process."""
        if os.getpid() != self._process:
            raise RollflowError(f"{self._what} was loaded before this process was forked; {MEND}")
