"""Rewards of commands that are to be interrupted; what they are asked leaves a file in the working directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

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
