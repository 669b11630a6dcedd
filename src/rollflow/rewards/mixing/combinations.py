"""The ways to combine the scores of several rewards into one."""

from __future__ import annotations

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.mixing.mixture import Mixture
from rollflow.rewards.mixing.normalization import Normalization
from rollflow.rewards.pessimism import pessimistic

_OF_PARTS = Card("that of its parts", "that of its parts", "that of its parts", "that of its parts", "-")


def _weights(weights: tuple[float, ...] | None, parts: tuple[RewardModel, ...]) -> tuple[float, ...]:
    if weights is None:
        return (1.0,) * len(parts)
    weights = checks.each("weights", weights, checks.real, "a tuple of numbers")
    if len(weights) != len(parts):
        raise BadSetting(f"got {len(weights)} weights for {len(parts)} parts; give one for each part")
    return weights


class WeightedSum(Mixture):
    """The weighted sum of several rewards.

        r = sum_i w_i z_i

    Args:
        parts: Two or more rewards with distinct names.
        weights: Weight w of each part; None is 1 for all. A negative weight minimizes that part.
        normalization: Method that turns the scores r_i into z_i; None leaves them as they are.

    Raises:
        BadSetting: If the weights or the normalization do not fit the parts.
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
    """The smallest of several rewards, so that no part can make up for another.

        r = min_i z_i

    Args:
        parts: Two or more rewards with distinct names.
        normalization: Method that turns the scores r_i into z_i; None leaves them as they are, which suits parts that
            share a scale.
    """

    name = "minimum"
    description = "smallest of several rewards: minimum(parts=A;B, normalization=running)"
    card = _OF_PARTS

    def mixed(self, scores: Tensor) -> Tensor:
        return scores.min(1).values


class Pessimistic(Mixture):
    """The mean of several rewards less a multiple of their standard deviation: a lower confidence bound.

        r = mean_i z_i - penalty * sd_i z_i

    Where networks disagree, at most one of them is right, and a search finds such samples. A conservative ensemble
    (Coste et al. 2023, arXiv 2310.02743, whose UWO subtracts the variance; the deviation has the unit of the rewards).
    The deviation is that of the k scores themselves, so that with two parts and a penalty of 1 it is ``Minimum``. The
    parts must share a scale, like ``caption`` of several detectors, or be normalized.

    Args:
        parts: Two or more rewards with distinct names.
        penalty: Weight >= 0 of the standard deviation.
        normalization: Method that turns the scores r_i into z_i; None leaves them as they are.

    Raises:
        BadSetting: If the penalty is negative.
    """

    name = "pessimistic"
    description = "mean less standard deviation of several rewards: pessimistic(parts=A;B, penalty=1)"
    card = _OF_PARTS
    _settings = ("normalization", "penalty")

    def __init__(
        self,
        parts: tuple[RewardModel, ...],
        penalty: float = 1.0,
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__(parts, normalization)
        self.penalty = checks.real(f"penalty of {self.name}", penalty, at_least=0)

    def mixed(self, scores: Tensor) -> Tensor:
        return pessimistic(scores, self.penalty)

    def extremes(self, ends: Tensor) -> Tensor:
        if not ends.isfinite().all():
            low = ends[0].mean() if not self.penalty else ends.new_tensor(-torch.inf)
            return torch.stack([low, ends[1].mean()])
        corners = torch.cartesian_prod(*ends.T)  # concave: lowest at one of the corners
        return torch.stack([self.mixed(corners).min(), ends[1].mean()])


class Lexicographic(Mixture):
    """Several rewards in order of importance: each counts until it reaches its threshold, then the next one does.

        r = m + (1 + d / (1 + |d|)) / 2,    d = r_j - threshold_j

    where the first m parts reach their thresholds and part j = m + 1 does not. If all do, j is the last part, which
    keeps counting. A sample with more parts above their thresholds always has the higher reward.

    Args:
        parts: Two or more rewards with distinct names, the most important first.
        thresholds: Threshold of each part, in the unit of its scores.

    Raises:
        BadSetting: If the numbers of thresholds and parts differ.
    """

    name = "lexicographic"
    description = "rewards in order, each until it reaches its threshold: lexicographic(parts=A;B, thresholds=0;0.3)"
    card = _OF_PARTS._replace(range="0 to the number of parts plus 1")
    _settings = ("thresholds",)

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """The same for any parts: 0 and their number plus 1."""
        return 0.0, len(self.parts) + 1.0

    def __init__(self, parts: tuple[RewardModel, ...], thresholds: tuple[float, ...]) -> None:
        super().__init__(parts)
        thresholds = checks.each("thresholds", thresholds, checks.real, "a tuple of numbers")
        if len(thresholds) != len(parts):
            raise BadSetting(f"got {len(thresholds)} thresholds for {len(parts)} parts; give one for each part")
        self.thresholds = thresholds

    def mixed(self, scores: Tensor) -> Tensor:
        above = scores - scores.new_tensor(self.thresholds)
        reached = (above >= 0).cumprod(1).sum(1)
        d = above.gather(1, reached.clamp(max=len(self.thresholds) - 1)[:, None])[:, 0]
        return reached + (1 + d / (1 + d.abs())) / 2


class RankAverage(Mixture):
    """The weighted mean of a sample's ranks by several rewards, which need not share a scale.

        r = sum_i w_i rank_i / sum_i w_i

    rank_i, in (0, 1), is the share of the samples scored so far in the same population that part i scores lower than
    this one; ties count half. Earlier samples are not ranked again.

    Args:
        parts: Two or more rewards with distinct names.
        weights: Weight w of each part, >= 0; None is 1 for all.

    Raises:
        BadSetting: If the weights do not fit the parts, one is negative, or none is positive.
    """

    name = "rank-average"
    description = "mean rank by several rewards of any scale: rank-average(parts=A;B); in (0, 1)"
    card = _OF_PARTS._replace(range="0 to 1")
    _settings = ("weights",)

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """The same for any parts: 0 and 1."""
        return 0.0, 1.0

    def __init__(self, parts: tuple[RewardModel, ...], weights: tuple[float, ...] | None = None) -> None:
        super().__init__(parts)
        self.weights = _weights(weights, self.parts)
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise BadSetting(f"expected weights >= 0, at least one of them above 0; got {self.weights}")
        self.relative = True
        self.differentiable = False  # type: ignore[misc]

    def combine(self, scores: Tensor, seen: Tensor) -> Tensor:
        less = (seen[:, None] < scores).double().mean(0)
        same = (seen[:, None] == scores).double().mean(0)
        return self.mixed(less + same / 2)

    def mixed(self, scores: Tensor) -> Tensor:
        weights = scores.new_tensor(self.weights)
        return scores @ weights / weights.sum()
