"""The base of rewards for the embedded models, which look for the objects of a scene with a small detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rollflow.models.loading import Dtype, load_weights
from rollflow.models.scenes.grammar import KINDS, parse
from rollflow.rewards.base import Card, PictureReward
from rollflow.rewards.scenes.detectors import SIDE, WEIGHTS, Peaks, SceneDetector, shrunk
from rollflow.runtime.forks import Home

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGED = Card("", "nothing: in the package", "1 MB", "Apache-2.0", "this package; tools/training/train_detector.py")
KIND_NAMES = tuple(KINDS)


class SceneReward(PictureReward):
    """A reward based on a detector for 64 x 64 pictures; pictures of whole multiples of that size are shrunk.

    Args:
        weights: Folder of the detector's weights; None means those in the package.
        dtype: Type in which the detector computes, ``float32`` or ``bfloat16``, which pays on CPUs with AMX.

    Raises:
        BadSetting: If the dtype is not known.
        BadWeights: If the file is missing or damaged.
    """

    file: str
    network: type[SceneDetector]

    def __init__(self, weights: Path | None = None, dtype: Dtype = "float32") -> None:
        self._home = Home(f"reward '{self.name}'")
        self.dtype = dtype
        self.detector = self.network()
        self._digest = load_weights(self.detector, (weights or WEIGHTS) / self.file, dtype=dtype)

    @classmethod
    def sharing(cls, other: SceneReward) -> Self:
        """Create a reward with the detector of another one, which must have the same ``network``."""
        made = cls.__new__(cls)
        made._home, made.dtype = Home(f"reward '{cls.name}'"), other.dtype
        made.detector, made._digest = other.detector, other._digest
        return made

    @property
    def identity(self) -> str:
        """The name, the beginning of the SHA-256 of the detector's file, and the dtype unless it is float32."""
        settings = "" if self.dtype == "float32" else f", dtype={self.dtype}"
        return f"{self.name}({self._digest}{settings})"

    @classmethod
    def check_prompt(cls, prompt: str) -> None:
        parse(prompt)

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        height, width = shape[-2:] if len(shape) > 1 else (0, 0)
        if super().unfit(shape) is None and (height != width or height % SIDE):
            return (
                f"'{self.name}' expects scenes of {SIDE} x {SIDE} pixels or a whole multiple of that, got "
                f"{width} x {height}; resize the picture to {SIDE} x {SIDE}, or use a reward for pictures of any size"
            )
        return super().unfit(shape)

    def counts(self, samples: Tensor) -> Tensor:
        """Number (B, kinds) of objects found in each picture."""
        with torch.no_grad():
            return self.peaks(samples).counts()

    def peaks(self, samples: Tensor) -> Peaks:
        """Find the objects in each picture (B, 3, H, W)."""
        self._home.check()
        return self.detector.peaks(shrunk(samples.to(self.detector.scale)))

    def minus_rss(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Minus the squared errors (B,), in float64, of the counts that each caption asks for."""
        counts, scores = self.counts(pixels), []
        for row, prompt in zip(counts, prompts, strict=True):
            wanted = parse(prompt).counts()
            scores.append(-sum((int(row[KIND_NAMES.index(kind)]) - count) ** 2 for kind, count in wanted.items()))
        return torch.tensor(scores, dtype=torch.float64)
