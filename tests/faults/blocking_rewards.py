"""Rewards of commands that are to be interrupted; what they are asked leaves a file in the working directory."""

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
    """Redness, for so many calls; then nothing for an hour, and a file 'stuck'.

    Args:
        calls: That it answers.
        swallow: Whether what interrupts it is swallowed, and it answers.
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
    """Redness that says so, from its fifth call on.

    Args:
        how: "prints", "warns", or "threads": warns in a thread of its own.
    """

    name = "chatty"
    description = "redness that talks"

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
