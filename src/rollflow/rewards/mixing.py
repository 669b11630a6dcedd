"""Rewards made of others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import ClassVar

import torch
from torch import Tensor

from rollflow import checks
from rollflow.canonical import stable_repr
from rollflow.checks import Settings
from rollflow.errors import BadSetting
from rollflow.registry import Registry
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.checks import check_names, check_scorable
from rollflow.rewards.scoring import rewards_of


class Normalization(Settings, ABC):
    """How the scores of parts are brought to one scale before they are mixed.

    Attributes:
        relative: Whether that looks at what was scored before.
    """

    relative: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        """(B, k) scores of k parts on one scale; ``seen`` (n, k) are those until now, these the last of them."""

    def check(self, parts: int) -> None:
        """Raise a BadSetting if it cannot be of so many parts."""


@dataclass(frozen=True)
class Raw(Normalization):
    """z = r."""

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        return scores


@dataclass(frozen=True)
class Constants(Normalization):
    """z = (r - mean) / std, with constants that were measured before.

    Args:
        mean: Of each part.
        std: Of each part, > 0.

    Raises:
        BadSetting: If they are of different lengths, or one std is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise BadSetting(f"expected as many means as positive stds; got mean={self.mean} and std={self.std}")

    def check(self, parts: int) -> None:
        if len(self.mean) != parts:
            raise BadSetting(f"{len(self.mean)} constants do not fit {parts} parts; give one mean and std for each")

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        return (scores - scores.new_tensor(self.mean)) / scores.new_tensor(self.std)


@dataclass(frozen=True)
class Running(Normalization):
    """z = (r - mean) / max(std, floor), over all that the same population has had scored until now.

    What was mixed earlier is not mixed anew, so that rewards of early steps were measured with other statistics: give
    a search many first draws, or constants where such are known.

    Args:
        floor: Least std, so that a part that says nothing yet decides nothing.
    """

    relative = True
    floor: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("floor of running", self.floor, above=0)

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        return (scores - seen.mean(0)) / seen.std(0, correction=0).clamp(min=self.floor)


_OF_PARTS = Card("that of its parts", "that of its parts", "that of its parts", "that of its parts", "-")
NORMALIZATIONS: Registry[Normalization] = Registry(
    "normalization", Normalization, {"raw": Raw, "constants": Constants, "running": Running}
)


def _part(name: str, value: object) -> RewardModel:
    part: RewardModel = checks.instance(name, value, RewardModel)
    return part


class Mixture(RewardModel):
    """A reward made of others, each of which is reported on its own beside it.

    Args:
        parts: Two or more, of different names.
        normalization: How their scores are brought to one scale.

    Raises:
        BadSetting: If there are fewer parts than two, two of one name, or one that is relative itself: it would be
            relative to whatever shares its call. Names of rewards from elsewhere are known, and compared, once loaded.
    """

    def __init__(self, parts: tuple[RewardModel, ...], normalization: Normalization | None = None) -> None:
        parts = checks.each(f"parts of {self.name}", parts, _part, "a tuple of rewards")
        checks.instance(f"normalization of {self.name}", normalization, Normalization, NoneType)
        self._parts, self.normalization = parts, normalization or Raw()
        if len(parts) < 2:
            raise BadSetting(f"a mixture has two or more parts; got {', '.join(part.name for part in parts) or 'none'}")
        for part in parts:
            if part.relative:
                raise BadSetting(f"'{part.name}' looks back at what was scored, so that it cannot be part of a mixture")
        check_names("mixture part", [part for part in parts if not part.remote])
        self.normalization.check(len(parts))
        self.relative = self.normalization.relative
        self.differentiable = not self.relative and all(  # type: ignore[misc]
            part.differentiable for part in parts
        )
        self._learn()

    def _learn(self) -> None:
        """Take over from the parts what those from elsewhere know of themselves only once they are loaded."""
        names = [part.name for part in self.parts]
        judges = [judge for part in self.parts for judge in part.held_out if judge not in names]
        self.held_out = tuple(dict.fromkeys(judges))  # type: ignore[misc]
        self.structured = any(part.structured for part in self.parts)
        self.interactive = any(part.interactive for part in self.parts)

    @property
    def bounds(self) -> tuple[float, float] | None:  # type: ignore[override]
        """What the ends of the parts' ranges make; None where one is unknown, or parts are brought to other scales."""
        known = [part.bounds for part in self.parts if part.bounds is not None]
        if self.relative or len(known) < len(self.parts):
            return None
        ends = torch.tensor(known, dtype=torch.float64).T
        low, high = self.extremes(self.normalization(ends, ends)).tolist()
        return low, high

    def extremes(self, ends: Tensor) -> Tensor:
        """(2,) lowest and highest value of ``mixed``, from those of the normalised parts, (2, k)."""
        return self.mixed(ends)

    @property
    def parts(self) -> tuple[RewardModel, ...]:
        return self._parts

    @property
    def identity(self) -> str:
        settings = [f"{name}={stable_repr(getattr(self, name))}" for name in self._settings]
        return f"{self.name}({', '.join([*(part.identity for part in self.parts), *settings])})"

    _settings: ClassVar[tuple[str, ...]] = ("normalization",)
    """Attributes that set it apart from others of the same parts."""

    def overlaps(self, device: torch.device | None) -> bool:
        return any(part.overlaps(device) for part in self.parts)

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        return next((why for part in self.parts if (why := part.unfit(shape)) is not None), None)

    @property
    def place(self) -> Hashable:
        places = {part.place for part in self.parts} - {None}
        return places.pop() if len(places) == 1 else frozenset(places) or None

    def check(self, prompt: str) -> None:
        for part in self.parts:
            check_scorable(part, prompt)

    def load(self) -> None:
        for part in self.parts:
            part.load()
        check_names("mixture part", self.parts)
        self._learn()

    def combine(self, scores: Tensor, seen: Tensor) -> Tensor:
        return self.mixed(self.normalization(scores, seen))

    @abstractmethod
    def mixed(self, scores: Tensor) -> Tensor:
        """(B,) from the normalised scores of the parts, (B, k)."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """As ``combine`` of these samples alone; NaN of those of which a part gives no finite number."""
        scores = torch.stack([rewards_of(part, samples, prompts) for part in self.parts], 1)
        sound = scores.isfinite().all(1)
        if sound.all():
            return self.combine(scores, scores)
        mixed = scores.sum(1) * torch.nan  # with a graph, where there is one
        if sound.any():
            mixed[sound] = self.combine(scores[sound], scores[sound])
        return mixed


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
