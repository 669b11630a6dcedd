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


NORMALIZATIONS: Registry[Normalization] = Registry(
    "normalization", Normalization, {"raw": Raw, "constants": Constants, "running": Running}
)
"""Every normalization, by its name on the command line."""
