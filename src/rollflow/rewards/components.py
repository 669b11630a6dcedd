"""What a reward is made of: the rewards that it wraps, and the parts of mixtures."""

from __future__ import annotations

from rollflow.rewards.base import RewardModel
from rollflow.rewards.wrappers.base import Wrapper


def unwrapped(reward: RewardModel | type[RewardModel]) -> list[RewardModel | type[RewardModel]]:
    """Return a reward, the one that it wraps if it does, the one that this wraps, and so on."""
    inner = unwrapped(reward.reward) if isinstance(reward, Wrapper) else []
    return [reward, *inner]


def components(reward: RewardModel | type[RewardModel]) -> list[RewardModel | type[RewardModel]]:
    """Return the rewards that wrap nothing and mix nothing, of which a reward is made; itself if it is one."""
    last = unwrapped(reward)[-1]
    if isinstance(last, type) or last.parts == (last,):
        return [last]
    return [one for part in last.parts for one in components(part)]
