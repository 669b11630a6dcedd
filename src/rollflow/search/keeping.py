"""Which of the copies of all streams are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rollflow.checks import Settings
from rollflow.registry import Registry
from rollflow.search.streams import best_of_each


class Keeping(Settings, ABC):
    """A rule that keeps one particle for each stream.

    Attributes:
        name: Name on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def rows(self, reward: Float64[Tensor, " B"], streams: int) -> Int64[Tensor, " {streams}"]:
        """Return the rows to keep, the new particle of every stream in order.

        Args:
            reward: (B,) rewards of all copies, ordered by stream, with the same number for each.
            streams: Number of streams.
        """


@dataclass(frozen=True)
class EachStream(Keeping):
    """Keep the best copy of each stream, so that streams stay independent."""

    name = "each"

    def rows(self, reward: Float64[Tensor, " B"], streams: int) -> Int64[Tensor, " {streams}"]:
        return best_of_each(reward, streams)


@dataclass(frozen=True)
class AllCopies(Keeping):
    """Keep the best N of all copies of N streams, in their order, and the first of equals.

    Ma et al. 2025, arXiv 2501.09732, "search over paths": the top N candidates go on.
    """

    name = "all"

    def rows(self, reward: Float64[Tensor, " B"], streams: int) -> Int64[Tensor, " {streams}"]:
        return torch.argsort(reward, descending=True, stable=True)[:streams].sort().values


KEEPINGS: Registry[Keeping] = Registry(
    "rule of what is kept", Keeping, {rule.name: rule for rule in (EachStream, AllCopies)}
)
"""Every rule of what is kept, by its name on the command line."""
