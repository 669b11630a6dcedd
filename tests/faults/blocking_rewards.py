"""Rewards for commands that are interrupted: one that never answers, and one that prints."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from torch import Tensor

from rollflow.errors import RollflowWarning
from rollflow.rewards import RewardModel


class Stuck(RewardModel):
    """Redness; after a number of calls it creates the file 'stuck' and then sleeps for an hour.

    Args:
        calls: Number of calls that are answered at once.
        swallow: Whether it swallows an exception that interrupts it, and then answers.
    """

    name = "stuck"
    description = "redness that takes an hour"

    def __init__(self, calls: int = 0, swallow: bool = False) -> None:
        self.calls, self.swallow = calls, swallow

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            Path("stuck").touch()
            try:
                time.sleep(3600)
            except BaseException:
                if not self.swallow:
                    raise
        return samples[:, 0].mean((1, 2))


class Chatty(RewardModel):
    """Redness that writes a line in every call from the fifth on.

    Args:
        how: "prints" to standard output, "warns", or "threads", which prints to standard error in another thread.
    """

    name = "chatty"
    description = "redness that prints"

    def __init__(self, how: str = "prints") -> None:
        self.how, self.calls = how, 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls += 1
        if self.calls > 4:
            if self.how == "prints":
                print("still at it")
            elif self.how == "warns":
                warnings.warn(f"call {self.calls}", RollflowWarning, stacklevel=1)
            else:
                thread = Thread(target=print, args=("still at it",), kwargs={"file": sys.stderr})
                thread.start()
                thread.join()
        return samples[:, 0].mean((1, 2))
