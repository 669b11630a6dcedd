"""Rewards."""

from rollflow.errors import NotDifferentiable
from rollflow.registry import Registry
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scenes import CaptionReward, CountReward, JudgeReward

REWARDS: Registry[RewardModel] = Registry(
    "reward",
    RewardModel,
    {reward.name: reward for reward in (CountReward, CaptionReward, JudgeReward)},
    "rollflow.rewards",
)
"""Every reward that a name on the command line loads; a class's constructor loads its weights."""


def check_differentiable(reward: RewardModel | type[RewardModel]) -> None:
    """Raises NotDifferentiable, which names the rewards that are, if this one is not."""
    if not reward.differentiable:
        names = ", ".join(name for name, known in REWARDS.items() if known.differentiable)
        raise NotDifferentiable(f"guidance needs a differentiable reward, which '{reward.name}' is not; known: {names}")


__all__ = ["REWARDS", "RewardModel", "check_differentiable"]
