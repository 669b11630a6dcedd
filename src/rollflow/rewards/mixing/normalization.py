"""Normalizations that bring the scores of a mixture's parts to one scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rollflow import checks
from rollflow.checks import Settings
from rollflow.errors import BadSetting
from rollflow.registry import Registry


class Normalization(Settings, ABC):
    """A method to bring the scores of a mixture's parts to one scale.

    Attributes:
        relative: Whether it uses the scores of earlier samples.
    """

    relative: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Normalize scores.

        Args:
            scores: Scores (B, k) of the new samples by k parts.
            seen: Scores (n, k) of all samples so far; the last B rows are ``scores``.

        Returns:
            Normalized scores (B, k).
        """

    def check(self, parts: int) -> None:
        """Raise a BadSetting if the settings do not fit the number of parts."""


@dataclass(frozen=True)
class Raw(Normalization):
    """Leaves scores as they are: z = r."""

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        return scores


@dataclass(frozen=True)
class Constants(Normalization):
    """Standardizes scores by constants measured beforehand: z = (r - mean) / std.

    Args:
        mean: Mean score of each part.
        std: Standard deviation of each part's scores, > 0.

    Raises:
        BadSetting: If the lengths differ, or a standard deviation is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise BadSetting(f"expected one mean and one positive std per part; got mean={self.mean}, std={self.std}")

    def check(self, parts: int) -> None:
        if len(self.mean) != parts:
            raise BadSetting(f"got {len(self.mean)} constants for {parts} parts; give one mean and std for each part")

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        return (scores - scores.new_tensor(self.mean)) / scores.new_tensor(self.std)


@dataclass(frozen=True)
class Running(Normalization):
    """Standardizes scores by running statistics: z = (r - mean) / max(std, floor).

    Mean and standard deviation are over all samples that the same population has scored so far. Earlier rewards are
    not recomputed, so those of the first steps rest on other statistics: let the search draw many samples at first, or
    use ``Constants`` where they are known.

    Args:
        floor: Smallest standard deviation to divide by, so that a part whose scores do not differ yet has no effect.
    """

    relative = True
    floor: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.real("floor of running", self.floor, above=0)

    def __call__(self, scores: Tensor, seen: Tensor) -> Tensor:
        return (scores - seen.mean(0)) / seen.std(0, correction=0).clamp(min=self.floor)


NORMALIZATIONS: Registry[Normalization] = Registry(
    "normalization", Normalization, {"raw": Raw, "constants": Constants, "running": Running}
)
"""Every normalization, by its name on the command line."""
