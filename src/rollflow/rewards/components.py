"""What a reward is made of: the rewards that it wraps, and the parts of mixtures."""

from __future__ import annotations

from rollflow.rewards.base import RewardModel
from rollflow.rewards.wrappers.base import Wrapper


def components(reward: RewardModel | type[RewardModel]) -> list[RewardModel | type[RewardModel]]:
    """Return the rewards that wrap nothing and mix nothing, of which a reward is made; itself if it is one."""
    if isinstance(reward, Wrapper):
        return components(reward.reward)
    if isinstance(reward, type) or reward.parts == (reward,):
        return [reward]
    return [one for part in reward.parts for one in components(part)]
