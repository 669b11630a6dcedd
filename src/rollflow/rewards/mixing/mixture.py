"""The base of rewards that are made of others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from types import NoneType
from typing import ClassVar

import torch
from torch import Tensor

from rollflow import checks
from rollflow.canonical import stable_repr
from rollflow.errors import BadSetting
from rollflow.rewards.base import RewardModel
from rollflow.rewards.checks import check_names, check_scorable
from rollflow.rewards.mixing.normalization import Normalization, Raw
from rollflow.rewards.scoring import rewards_of


def _part(name: str, value: object) -> RewardModel:
    part: RewardModel = checks.instance(name, value, RewardModel)
    return part


class Mixture(RewardModel):
    """A reward made of others, whose scores are also reported separately.

    Args:
        parts: Two or more rewards with distinct names.
        normalization: Method to bring their scores to one scale; None leaves them as they are.

    Raises:
        BadSetting: If there are fewer than two parts, if two have the same name (for remote rewards this is checked
            when they are loaded), or if a part is itself relative, as it would depend on the batch it is scored in.
    """

    def __init__(self, parts: tuple[RewardModel, ...], normalization: Normalization | None = None) -> None:
        parts = checks.each(f"parts of {self.name}", parts, _part, "a tuple of rewards")
        checks.instance(f"normalization of {self.name}", normalization, Normalization, NoneType)
        self._parts, self.normalization = parts, normalization or Raw()
        if len(parts) < 2:
            raise BadSetting(f"a mixture needs at least two parts; got {', '.join(p.name for p in parts) or 'none'}")
        for part in parts:
            if part.relative:
                raise BadSetting(f"'{part.name}' depends on earlier scores, so it cannot be part of a mixture")
        check_names("mixture part", [part for part in parts if not part.remote])
        self.normalization.check(len(parts))
        self.relative = self.normalization.relative
        self.differentiable = not self.relative and all(  # type: ignore[misc]
            part.differentiable for part in parts
        )
        self._learn()

    def _learn(self) -> None:
        """Update the attributes that derive from the parts; remote parts know theirs only once they are loaded."""
        names = [part.name for part in self.parts]
        judges = [judge for part in self.parts for judge in part.held_out if judge not in names]
        self.held_out = tuple(dict.fromkeys(judges))  # type: ignore[misc]
        self.structured = any(part.structured for part in self.parts)
        self.interactive = any(part.interactive for part in self.parts)

    @property
    def bounds(self) -> tuple[float, float] | None:  # type: ignore[override]
        """Bounds derived from those of the parts; None if one is unknown or the normalization is relative."""
        known = [part.bounds for part in self.parts if part.bounds is not None]
        if self.relative or len(known) < len(self.parts):
            return None
        ends = torch.tensor(known, dtype=torch.float64).T
        low, high = self.extremes(self.normalization(ends, ends)).tolist()
        return low, high

    def extremes(self, ends: Tensor) -> Tensor:
        """Lowest and highest value (2,) of ``mixed``, given those of the normalized parts (2, k)."""
        return self.mixed(ends)

    @property
    def parts(self) -> tuple[RewardModel, ...]:
        return self._parts

    @property
    def identity(self) -> str:
        settings = [f"{name}={stable_repr(getattr(self, name))}" for name in self._settings]
        return f"{self.name}({', '.join([*(part.identity for part in self.parts), *settings])})"

    _settings: ClassVar[tuple[str, ...]] = ("normalization",)
    """Attributes that distinguish it from other mixtures of the same parts."""

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
        """Combine the normalized scores of the parts (B, k) into rewards (B,)."""

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        """Combine the scores of these samples alone; NaN where a part's score is not finite."""
        scores = torch.stack([rewards_of(part, samples, prompts) for part in self.parts], 1)
        finite = scores.isfinite().all(1)
        if finite.all():
            return self.combine(scores, scores)
        mixed = scores.sum(1) * torch.nan  # keeps the autograd graph
        if finite.any():
            mixed[finite] = self.combine(scores[finite], scores[finite])
        return mixed
