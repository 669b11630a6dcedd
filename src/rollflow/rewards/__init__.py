"""Rewards."""

from rollflow.errors import NotDifferentiable
from rollflow.registry import Registry
from rollflow.rewards.base import Card, PictureReward, RewardModel
from rollflow.rewards.mixing import Lexicographic, Minimum, RankAverage, WeightedSum
from rollflow.rewards.scenes import CaptionReward, CountReward, JudgeReward

_OWN: tuple[type[RewardModel], ...] = (
    CountReward,
    CaptionReward,
    JudgeReward,
    WeightedSum,
    Minimum,
    Lexicographic,
    RankAverage,
)

REWARDS: Registry[RewardModel] = Registry(
    "reward",
    RewardModel,
    {reward.name: reward for reward in _OWN},
    "rollflow.rewards",
)
"""Every reward that a name on the command line makes; its weights are there after ``load`` at the latest."""


def check_differentiable(reward: RewardModel | type[RewardModel]) -> None:
    """Raises NotDifferentiable, which names the rewards that are, if this one is not."""
    if not reward.differentiable:
        names = ", ".join(name for name, known in REWARDS.items() if known.differentiable)
        raise NotDifferentiable(f"guidance needs a differentiable reward, which '{reward.name}' is not; known: {names}")


__all__ = ["REWARDS", "Card", "PictureReward", "RewardModel", "check_differentiable"]
