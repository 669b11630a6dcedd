"""How the children that a chain can pay for are shared between its transitions, before anything rolls over."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rollflow.checks import Settings, real, refused
from rollflow.registry import Registry


class QuotaSchedule(Settings, ABC):
    """The quota of every transition.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def split(self, children: int, transitions: int) -> list[int]:
        """``children`` in ``transitions`` whole quotas, each at least 1; what does not divide goes to the last.

        Args:
            children: >= ``transitions``.
            transitions: >= 1.
        """


@dataclass(frozen=True)
class UniformQuota(QuotaSchedule):
    """The same for every transition (Kim et al. 2025, arXiv 2503.19385)."""

    name = "uniform"

    def split(self, children: int, transitions: int) -> list[int]:
        quota, rest = divmod(children, transitions)
        return [quota] * (transitions - 1) + [quota + rest]


@dataclass(frozen=True)
class WeightedQuota(QuotaSchedule):
    """One child for every transition, and the rest in proportion to weights along the way.

        Q_i = 1 + floor((children - T) w_i / sum_j w_j),    i = 1..T

    Args:
        weights: > 0, from the first transition to the last at equal distances; between them linearly interpolated,
            so that they need not be as many as the transitions: (2, 1) falls to half.
    """

    weights: tuple[float, ...]
    name = "weighted"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.weights:
            raise refused("weights of a quota schedule", "one number or more", self.weights)
        for place, weight in enumerate(self.weights):
            real(f"weights[{place}] of a quota schedule", weight, above=0)

    def split(self, children: int, transitions: int) -> list[int]:
        places = np.linspace(0, len(self.weights) - 1, transitions)
        weights = np.interp(places, np.arange(len(self.weights)), self.weights)
        rest = children - transitions
        quotas = [1 + math.floor(rest * share + 1e-9) for share in weights / weights.sum()]
        return [*quotas[:-1], children - sum(quotas[:-1])]


QUOTAS: Registry[QuotaSchedule] = Registry(
    "quota schedule", QuotaSchedule, {schedule.name: schedule for schedule in (UniformQuota, WeightedQuota)}
)
"""Every quota schedule, by its name on the command line."""
