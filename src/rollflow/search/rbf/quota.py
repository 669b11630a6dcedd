"""Quota schedules: how a chain's children are shared between its transitions before anything rolls over."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from rollflow.checks import Settings, real, refused
from rollflow.errors import BadSetting
from rollflow.registry import Registry
from rollflow.sampler import Dynamics
from rollflow.search.profile import Profile, packaged_for, warn_of_other
from rollflow.search.purpose import Purpose

LEAST_GAIN = 1e-6
"""Smallest weight of a transition in a quota by gains, as a share of the largest: gains below 0 are noise."""


class QuotaSchedule(Settings, ABC):
    """A rule that gives every transition its quota of children.

    Attributes:
        name: Name on the command line.
        reserve: NFE of every chain that are left unspent.
    """

    name: ClassVar[str]
    reserve: ClassVar[int] = 0

    def prepared(self, purpose: Purpose) -> QuotaSchedule:
        """Return the rule with every choice made that depends on the purpose of the search; here none is."""
        return self

    def along(self, dynamics: Dynamics) -> QuotaSchedule:
        """Return the rule for the transitions of these dynamics, whose noise levels it may depend on; here not."""
        return self

    @abstractmethod
    def split(self, children: int, transitions: int) -> list[int]:
        """Split children into whole quotas, each at least 1; a remainder goes to the last transition.

        Args:
            children: Number of children, >= ``transitions``.
            transitions: Number of quotas, >= 1.
        """


@dataclass(frozen=True)
class UniformQuota(QuotaSchedule):
    """Give every transition the same quota (Kim et al. 2025, arXiv 2503.19385)."""

    name = "uniform"

    def split(self, children: int, transitions: int) -> list[int]:
        quota, rest = divmod(children, transitions)
        return [quota] * (transitions - 1) + [quota + rest]


@dataclass(frozen=True)
class PublishedQuota(QuotaSchedule):
    """Give every transition but the last the quota of one of T + 1 steps, and the last all the rest.

        Q_i = max(1, floor(children / (T + 1))),  i = 1..T - 1;    Q_T = children - Q_1 - ... - Q_{T-1}

    The quota of the release of Kim et al. 2025, arXiv 2503.19385, which counts the T + 1 steps of its time grid where
    ``UniformQuota`` counts the T transitions between them, and leaves one NFE of a chain unspent: of 500 NFE, two
    chains of 25 initial noises and 10 steps use 498, with quotas of 22 and at last 48.
    """

    name = "published"
    reserve = 1

    def split(self, children: int, transitions: int) -> list[int]:
        quota = max(1, children // (transitions + 1))
        return [quota] * (transitions - 1) + [children - quota * (transitions - 1)]


@dataclass(frozen=True)
class WeightedQuota(QuotaSchedule):
    """Give every transition one child, and the rest in proportion to weights along the way.

        Q_i = 1 + floor((children - T) w_i / sum_j w_j),    i = 1..T

    Args:
        weights: Weights > 0 at equal distances from the first transition to the last, with linear interpolation
            between them, so that their number need not be that of the transitions: (2, 1) falls to half.
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


@dataclass(frozen=True)
class GainQuota(QuotaSchedule):
    """Give every transition one child, and the rest in proportion to what choosing among siblings gains there.

    The sibling gain of a profile (``rollflow bench profile``) at the noise level to which the transition leads, with
    linear interpolation; the children of a beam follow it, too. Unpublished.

    Args:
        profile: File of a profile; None takes the one in the package, if it has one of the model and the reward by
            name. Without one all transitions have the same quota. It is read once, when a job is made.
        levels: Noise levels of the profile, falling; None until it is read.
        gains: Sibling gain at each level, not below 0.
    """

    profile: Path | None = None
    levels: tuple[float, ...] | None = None
    gains: tuple[float, ...] | None = None
    name = "gain"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.profile is not None:
            object.__setattr__(self, "profile", Path(self.profile))
        if (self.levels is None) != (self.gains is None) or len(self.levels or ()) != len(self.gains or ()):
            raise BadSetting(f"a quota by gains needs one gain for each level; got {self.gains} for {self.levels}")

    def prepared(self, purpose: Purpose) -> QuotaSchedule:
        if self.levels is not None:
            return self
        known = packaged_for(purpose) if self.profile is None else Profile.load(self.profile)
        if known is None:
            return UniformQuota()
        warn_of_other(known, purpose)
        gains = tuple(max(0.0, float(gain)) for gain in known.gains().mean(0))
        return GainQuota(None, tuple(known.levels), gains)

    def along(self, dynamics: Dynamics) -> QuotaSchedule:
        if self.levels is None or self.gains is None:
            return UniformQuota()
        led_to = [dynamics.noise_level(k) for k in range(1, dynamics.sampler.steps)]
        at = np.interp(led_to, self.levels[::-1], self.gains[::-1])
        least = LEAST_GAIN * max(at, default=0.0)
        return WeightedQuota(tuple(max(least, float(gain)) for gain in at)) if least > 0 else UniformQuota()

    def split(self, children: int, transitions: int) -> list[int]:
        return UniformQuota().split(children, transitions)


QUOTAS: Registry[QuotaSchedule] = Registry(
    "quota schedule",
    QuotaSchedule,
    {schedule.name: schedule for schedule in (UniformQuota, PublishedQuota, WeightedQuota, GainQuota)},
)
"""Every quota schedule, by its name on the command line."""
