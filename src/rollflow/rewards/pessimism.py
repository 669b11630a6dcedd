"""Lower confidence bounds: means less a multiple of the standard deviation."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pessimistic(scores: Tensor, penalty: float) -> Tensor:
    """Mean less ``penalty`` times the standard deviation of scores (..., n), over the last dimension; returns (...).

    The deviation is that of the n scores themselves (divided by n), so that with two scores and a penalty of 1 the
    result is the smaller one. Its gradient is 0 where all scores are equal.
    """
    mean = scores.mean(-1)
    if not penalty:
        return mean
    variance = (scores - mean[..., None]).square().mean(-1)
    spread = variance > 0
    return mean - penalty * torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)


def bounds_of(low: float, high: float, n: int, penalty: float) -> tuple[float, float]:
    """Lowest and highest value of ``pessimistic`` for n scores from ``low`` to ``high``.

    It is concave in the scores, so that it is lowest where each of them is at one of the ends.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return (low if not penalty else -math.inf), high
    at_ends = ((m - penalty * math.sqrt(m * (n - m))) / n for m in range(n + 1))
    return low + (high - low) * min(at_ends), high
