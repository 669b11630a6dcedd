"""Refuses to compute in a fork of a process that has computed.

The threads that torch computes with are not in the fork, which would wait for them forever, and a lock that another
thread held is held there for good.
"""

from __future__ import annotations

import os

import torch

from rollflow.errors import RollflowError

MEND = "start workers by the method 'spawn', multiprocessing.get_context('spawn'), and load it in each"

_computing: int | None = None
"""The process that computed first: this one, or one that this one is forked from."""


class Home:
    """The process that something was loaded in, and whose forks cannot use it; pickled, it is where it is unpickled.

    Args:
        what: What was loaded, as in errors.

    Raises:
        RollflowError: In a fork of a process that has loaded something, unless torch computes in one thread there.
    """

    def __init__(self, what: str) -> None:
        global _computing
        self._what, self._process = what, os.getpid()
        if _computing not in (None, self._process) and torch.get_num_threads() > 1:
            raise RollflowError(
                f"{what} cannot be loaded in a fork of a process that has used models, since torch's threads are not "
                f"in it; {MEND}, or call torch.set_num_threads(1) first"
            )
        _computing = self._process

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self._what,)

    def check(self) -> None:
        """Raise a RollflowError in any other process."""
        if os.getpid() != self._process:
            raise RollflowError(f"{self._what} was loaded in another process, of which this one is a fork; {MEND}")
