"""A budget that several jobs share: what each of them gets follows from what all rounds before have reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollflow.checks import MOST_NFE, each, real, refused, whole
from rollflow.errors import BadSetting
from rollflow.rewards.base import RewardModel
from rollflow.sampler import even_shares


class Round(NamedTuple):
    """One finished round of a pooled job: a search of its own.

    Args:
        seed: Seed of its noise.
        budget: Budget in NFE.
        nfe: NFE that it spent.
        reward: Reward of its sample; NaN if it is not finite.
    """

    seed: int
    budget: int
    nfe: int
    reward: float


class Member(NamedTuple):
    """A job of a pool and what its rounds have reached.

    Args:
        name: Text that orders jobs with equal rewards, so that their order in a list does not matter.
        nfe: The job's own budget; its share of the pool is in proportion to it.
        smallest: Smallest budget with which its search runs.
        until: Reward at which it stops.
        rounds: Its rounds so far.
        failed: Whether it has failed and gets no further round.
    """

    name: str
    nfe: int
    smallest: int
    until: float
    rounds: Sequence[Round] = ()
    failed: bool = False

    @property
    def best(self) -> float:
        """Highest reward so far; -inf before the first round."""
        return max((one.reward for one in self.rounds if one.reward == one.reward), default=-math.inf)

    @property
    def open(self) -> bool:
        """Whether it can use a further round."""
        return not self.failed and self.best < self.until


@dataclass(frozen=True)
class Pool:
    """A budget that jobs share, so that those that reach ``until`` leave the rest of their share to the others.

    The jobs run in rounds. A round is a fresh search with a seed of its own, and a job returns the best sample of its
    rounds. Round k gives rounds[k] times its even share (rounds[-1] times from then on) to each job whose best reward
    is below ``until``; where that is more than is left, to those with the lowest rewards, and to the last of these what
    is left. A remainder that would be too small for any further round is spent in this one. So the whole pool is spent,
    unless all jobs reach ``until``, or what is left is less than any of them can use.

    A round is decided when all searches of the round before have ended, from their rewards and costs alone: it does not
    depend on the order of the jobs, or on what runs at the same time. Unpublished; Kim et al. 2025, arXiv 2503.19385,
    roll unused budget over from step to step of one search.

    Args:
        nfe: Total budget in NFE; None is the sum of the jobs' budgets.
        until: Reward at which a job stops; None is the highest possible reward (``RewardModel.bounds``). Where that is
            hardly ever reached, as by a probability, choose a lower one: what is spent on samples that are good enough
            is not spent on others.
        rounds: Sizes > 0 of the rounds in even shares, the first at most 1.

    Raises:
        BadSetting: If a value is out of range.
    """

    nfe: int | None = None
    until: float | None = None
    rounds: tuple[float, ...] = (0.6, 1.0, 1.6, 2.5)

    def __post_init__(self) -> None:
        if self.nfe is not None:
            object.__setattr__(self, "nfe", whole("nfe of a pool", self.nfe, at_least=1, at_most=MOST_NFE))
        if self.until is not None:
            real("until of a pool", self.until)
        sizes = each(
            "rounds of a pool", self.rounds, lambda name, size: real(name, size, above=0), "a tuple of numbers"
        )
        if not sizes or sizes[0] > 1:
            raise refused("rounds of a pool", "numbers > 0 of which the first is at most 1", self.rounds)
        object.__setattr__(self, "rounds", sizes)

    def threshold(self, reward: RewardModel) -> float:
        """Return the reward at which a job stops.

        Raises:
            BadSetting: If there is neither ``until`` nor a highest possible reward, or if the rewards of different
                searches cannot be compared.
        """
        if reward.relative:
            raise BadSetting(
                f"reward '{reward.name}' compares the samples of one search with each other, so that the rounds of a "
                "pool cannot be compared; choose another reward"
            )
        if self.until is not None:
            return self.until
        if reward.bounds is None or not math.isfinite(reward.bounds[1]):
            raise BadSetting(
                f"reward '{reward.name}' has no highest value at which the jobs of a pool could stop; give until"
            )
        return reward.bounds[1]

    def total(self, members: Sequence[Member]) -> int:
        """Return the whole budget."""
        return sum(one.nfe for one in members) if self.nfe is None else self.nfe

    def left(self, members: Sequence[Member]) -> int:
        """Return what the finished rounds have left of the budget."""
        return self.total(members) - sum(one.nfe for member in members for one in member.rounds)

    def check(self, members: Sequence[Member]) -> None:
        """Raise a BadSetting if the budget does not buy the smallest search for every job."""
        total, smallest = self.total(members), sum(one.smallest for one in members)
        if total < smallest:
            raise BadSetting(
                f"the {len(members)} jobs of the pool need {smallest} NFE for one search each; it has {total}"
            )

    def next_round(self, members: Sequence[Member]) -> dict[int, int]:
        """Return the budgets of the next round by the index of their job; nothing if there is no further round.

        Args:
            members: All jobs, each with all rounds that it got; all of these have ended.
        """
        number = max((len(one.rounds) for one in members), default=0)
        size = self.rounds[min(number, len(self.rounds) - 1)] * self.total(members) / sum(one.nfe for one in members)
        order = sorted(
            (i for i, one in enumerate(members) if one.open), key=lambda i: (members[i].best, members[i].name)
        )
        left = self.left(members)
        later = sum(one.smallest for one in members) if number == 0 else 0  # every job gets a first round
        budgets: dict[int, int] = {}
        for i in order:
            smallest = members[i].smallest
            later -= smallest if number == 0 else 0
            budget = min(max(round(size * members[i].nfe), smallest), left - later, MOST_NFE)
            if budget >= smallest:
                budgets[i] = budget
                left -= budget
        if budgets and left < min(members[i].smallest for i in order):
            for i, more in zip(budgets, reversed(even_shares(left, len(budgets))), strict=True):
                budgets[i] += more
        return budgets
