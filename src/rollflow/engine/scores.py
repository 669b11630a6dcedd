"""Combination of the scores of a reward's parts, and comparison with the range that a reward declares."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float64
from torch import Tensor

from rollflow.errors import BadReward
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import outside
from rollflow.runtime.callees import called


def combined(
    reward: RewardModel, scores: Float64[Tensor, " B k"], seen: Float64[Tensor, " n k"]
) -> Float64[Tensor, " B"]:
    """Combine the scores (B, k) of a reward's parts into rewards (B,).

    Args:
        reward: Reward whose ``combine`` is called.
        scores: (B, k) scores of its parts.
        seen: (n, k) all scores of the population so far, ``scores`` the last of them.

    Raises:
        BadReward: If ``combine`` raises an exception or gives another shape.
    """
    with called(f"reward '{reward.name}' failed", BadReward):
        rewards = reward.combine(scores.clone(), seen.clone())
    if not isinstance(rewards, Tensor) or rewards.shape != (len(scores),):
        shape = tuple(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
        raise BadReward(f"combine of reward '{reward.name}' gave {shape}; expected shape ({len(scores)},)")
    if rewards.is_complex() or rewards.is_meta:
        raise BadReward(f"combine of reward '{reward.name}' gave {rewards.dtype} on {rewards.device}; expected numbers")
    return rewards.detach().double().cpu()


def furthest(reward: RewardModel, scores: Sequence[float]) -> float:
    """Return the score furthest outside the range that a reward declares."""
    return max(scores, key=lambda score: outside(reward, score))


def range_warning(reward: RewardModel, score: float) -> str:
    """Return the warning about a score outside the range that its reward declares."""
    assert reward.bounds is not None
    low, high = reward.bounds
    return f"reward '{reward.name}' gave {score:.6g}, outside its declared range of {low:g} to {high:g}"
