"""Rewards."""

from rollflow.errors import unknown
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scenes import CaptionReward, CountReward, JudgeReward

REWARDS: dict[str, type[RewardModel]] = {reward.name: reward for reward in (CountReward, CaptionReward, JudgeReward)}
"""Every reward that a name on the command line loads; a class's constructor loads its weights."""


def reward_class(name: str) -> type[RewardModel]:
    """The class of a named reward; raises UnknownName."""
    if name not in REWARDS:
        raise unknown("reward", name, REWARDS)
    return REWARDS[name]


__all__ = ["REWARDS", "RewardModel", "reward_class"]
