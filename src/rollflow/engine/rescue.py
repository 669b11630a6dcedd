"""The limits within which an interrupted run may still call rewards."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

from rollflow.rewards.base import RewardModel
from rollflow.runtime import interruption

_SECONDS = 5.0
"""Time limit for all rewards together to score the result of an interrupted run, where signals are handled."""


class Rescue:
    """The end of a run after Ctrl-C, in which its best samples so far are saved.

    Attributes:
        begun: Whether the run was interrupted.
        hurried: Whether it was interrupted again since, after which no reward is called.
    """

    def __init__(self) -> None:
        self.begun = self.hurried = False
        self._until = 0.0

    def begin(self) -> None:
        """Begin, or restart after another interruption."""
        interruption.wind_up()
        self.hurried, self.begun = self.begun or self.hurried, True
        self._until = time.monotonic() + _SECONDS

    def skips(self, reward: RewardModel) -> bool:
        """Whether to skip a reward, since it would keep the user waiting."""
        return self.begun and (self.hurried or reward.interactive or _remote(reward))

    def limit(self) -> AbstractContextManager[None]:
        """Return a context that another signal, or the time limit, ends with a ``KeyboardInterrupt``."""
        return interruption.skippable(max(self._until - time.monotonic(), 0.001)) if self.begun else nullcontext()


def _remote(reward: RewardModel) -> bool:
    """Whether a reward, or a part of it, is computed in another process."""
    return reward.remote or any(_remote(part) for part in reward.parts if part is not reward)
