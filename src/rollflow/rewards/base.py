"""What the library needs of a reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor


class RewardModel(ABC):
    """One number a sample, higher is better.

    Attributes:
        name: As on the command line.
        description: One line, with the range.
        differentiable: Whether gradients flow from the reward to the samples.
        held_out: Names of the rewards that check this one on the result, and that no search sees.
        batch_size: The most samples it is given at once.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    differentiable: ClassVar[bool] = False
    held_out: ClassVar[tuple[str, ...]] = ()
    batch_size: int = 64

    @abstractmethod
    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Rewards (B,) of decoded samples (B, ...), each against its prompt."""
