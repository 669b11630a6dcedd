"""The ways to combine the scores of several rewards into one."""

from __future__ import annotations

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.mixing.mixture import Mixture
from rollflow.rewards.mixing.normalization import Normalization

_OF_PARTS = Card("that of its parts", "that of its parts", "that of its parts", "that of its parts", "-")


def _weights(weights: tuple[float, ...] | None, parts: tuple[RewardModel, ...]) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * len(parts)
    weights = checks.each("weights", weights, checks.real, "a tuple of numbers")
    if len(weights) != len(parts):
        raise BadSetting(f"{len(weights)} weights do not fit {len(parts)} parts; give one for each")
    return weights


class WeightedSum(Mixture):
    """r = sum_i w_i z_i.

    Args:
        parts: Two or more, of different names.
        weights: w of each part; None is 1 for all. A negative one asks for less of a part.
        normalization: How the parts' scores r_i become z_i.

    Raises:
        BadSetting: If weights or normalisation do not fit the parts.
    """

    name = "sum"
    description = "weighted sum of rewards: sum(parts=A;B, weights=1;0.5)"
    card = _OF_PARTS._replace(range="that of its parts, weighted")
    _settings = ("normalization", "weights")

    def __init__(
        self,
        parts: tuple[RewardModel, ...],
        weights: tuple[float, ...] | None = None,
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__(parts, normalization)
        self.weights = _weights(weights, self.parts)

    def mixed(self, scores: Tensor) -> Tensor:
        return scores @ scores.new_tensor(self.weights)

    def extremes(self, ends: Tensor) -> Tensor:
        weights = ends.new_tensor(self.weights)
        return torch.where(weights == 0, 0.0, weights * ends).sort(0).values.sum(1)


class Minimum(Mixture):
    """r = min_i z_i: no part can make up for another.

    Args:
        parts: Two or more, of different names.
        normalization: How the parts' scores become z_i; without one they should be of one scale.
    """

    name = "minimum"
    description = "the least of several rewards: minimum(parts=A;B, normalization=running)"
    card = _OF_PARTS

    def mixed(self, scores: Tensor) -> Tensor:
        return scores.min(1).values


class Lexicographic(Mixture):
    """The first reward counts until it is good enough, then the second, and so on.

        r = m + (1 + d / (1 + |d|)) / 2,    d = r_j - threshold_j

    where the first m parts reach their thresholds and part j = m + 1 does not; j is the last where all do, which then
    goes on counting. A sample of which more parts are good enough is always the better one.

    Args:
        parts: In the order of their importance.
        thresholds: Of each part, in its own unit.

    Raises:
        BadSetting: If there are not as many thresholds as parts.
    """

    name = "lexicographic"
    description = "rewards in order, each until it is good enough: lexicographic(parts=A;B, thresholds=0;0.3)"
    card = _OF_PARTS._replace(range="0 to the number of parts plus 1")
    _settings = ("thresholds",)

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """Whatever the parts say."""
        return 0.0, len(self.parts) + 1.0

    def __init__(self, parts: tuple[RewardModel, ...], thresholds: tuple[float, ...]) -> None:
        super().__init__(parts)
        thresholds = checks.each("thresholds", thresholds, checks.real, "a tuple of numbers")
        if len(thresholds) != len(parts):
            raise BadSetting(f"{len(thresholds)} thresholds do not fit {len(parts)} parts; give one for each")
        self.thresholds = thresholds

    def mixed(self, scores: Tensor) -> Tensor:
        above = scores - scores.new_tensor(self.thresholds)
        reached = (above >= 0).cumprod(1).sum(1)
        d = above.gather(1, reached.clamp(max=len(self.thresholds) - 1)[:, None])[:, 0]
        return reached + (1 + d / (1 + d.abs())) / 2


class RankAverage(Mixture):
    """r = sum_i w_i rank_i / sum_i w_i, whatever the parts' scales.

    rank_i, in (0, 1), is the share of all samples that the same population has had scored until now of which part i
    says less, those of which it says the same counted half. What was ranked earlier is not ranked anew.

    Args:
        parts: Two or more, of different names.
        weights: w of each part, >= 0; None is 1 for all.

    Raises:
        BadSetting: If weights do not fit the parts, or are not positive.
    """

    name = "rank-average"
    description = "mean of the ranks by several rewards, of whatever scale: rank-average(parts=A;B); in (0, 1)"
    card = _OF_PARTS._replace(range="0 to 1")
    _settings = ("weights",)

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """Whatever the parts say."""
        return 0.0, 1.0

    def __init__(self, parts: tuple[RewardModel, ...], weights: tuple[float, ...] | None = None) -> None:
        super().__init__(parts)
        self.weights = _weights(weights, self.parts)
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise BadSetting(f"expected weights of 0 or more, and one above 0; got {self.weights}")
        self.relative = True
        self.differentiable = False  # type: ignore[misc]

    def combine(self, scores: Tensor, seen: Tensor) -> Tensor:
        less = (seen[:, None] < scores).double().mean(0)
        same = (seen[:, None] == scores).double().mean(0)
        return self.mixed(less + same / 2)

    def mixed(self, scores: Tensor) -> Tensor:
        weights = scores.new_tensor(self.weights)
        return scores @ weights / weights.sum()
