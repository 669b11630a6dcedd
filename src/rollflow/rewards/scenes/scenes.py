"""Rewards for the embedded models: how well the objects of a scene match its caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rollflow.models.loading import Dtype, load_weights
from rollflow.models.scenes.grammar import KINDS, Caption, parse
from rollflow.rewards.base import Card, PictureReward
from rollflow.rewards.scenes.detectors import (
    SIDE,
    WEIGHTS,
    ConvNeXtDetector,
    Peaks,
    PyramidDetector,
    SceneDetector,
    shrunk,
)
from rollflow.runtime.forks import Home

_PACKAGED = Card("", "nothing: in the package", "1 MB", "Apache-2.0", "this package; tools/training/train_detector.py")
_KIND_NAMES = tuple(KINDS)
_SOFTNESS = 0.05


class _SceneReward(PictureReward):
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
            return self._peaks(samples).counts()

    def _peaks(self, samples: Tensor) -> Peaks:
        self._home.check()
        return self.detector.peaks(shrunk(samples.to(self.detector.scale)))

    def _minus_rss(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        counts, scores = self.counts(pixels), []
        for row, prompt in zip(counts, prompts, strict=True):
            wanted = parse(prompt).counts()
            scores.append(-sum((int(row[_KIND_NAMES.index(kind)]) - count) ** 2 for kind, count in wanted.items()))
        return torch.tensor(scores, dtype=torch.float64)


class CountReward(_SceneReward):
    """Minus the squared errors of the counts that the caption asks for.

        reward = -sum over kinds of (found - asked)^2,  0 is perfect

    The quantity reward of Kim et al. 2025 (arXiv 2503.19385, section 6), with the packaged detector in place of
    GroundingDINO.
    """

    name = "count"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    card = _PACKAGED._replace(range="minus infinity to 0, whole numbers", reference="arXiv 2503.19385, section 6")
    description = "minus the squared errors of the requested counts; 0 is perfect"
    held_out = ("judge",)
    file = "detector.safetensors"
    network = PyramidDetector

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._minus_rss(pixels, prompts)


class JudgeReward(_SceneReward):
    """The reward ``count`` computed by the held-out judge, which differs in architecture, seed and augmentation."""

    name = "judge"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    card = _PACKAGED._replace(range="minus infinity to 0, whole numbers")
    description = "held-out: the count reward, by a detector that no search sees"
    file = "judge.safetensors"
    network = ConvNeXtDetector

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._minus_rss(pixels, prompts)


class CaptionReward(_SceneReward):
    """A smooth probability that the caption is true, differentiable with respect to the picture.

    Every peak of the heat map is an object with its calibrated probability, independently of the others, so that the
    count of a kind has a Poisson-binomial distribution; a relation is true to the extent that pairs of peaks, weighted
    by their probabilities, satisfy it. The reward is the geometric mean of the probabilities of the caption's facts
    (each count, and the relation), in (0, 1]. It ranks pictures as the joint probability does, but does not underflow.
    """

    name = "caption"
    bounds = (0.0, 1.0)
    card = _PACKAGED._replace(range="0 to 1")
    description = "smooth probability that the counts and the relation are right; differentiable; in (0, 1]"
    differentiable = True
    held_out: ClassVar[tuple[str, ...]] = ("judge",)
    file = "detector.safetensors"
    network: type[SceneDetector] = PyramidDetector

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        captions = [parse(prompt) for prompt in prompts]
        facts = caption_facts(self._peaks(pixels), captions)
        return torch.stack([probabilities.log().mean().exp() for probabilities in facts])


class CaptionJudgeReward(CaptionReward):
    """The reward ``caption`` computed by the held-out judge; unlike ``judge`` it covers relations."""

    name = "caption-judge"
    description = "held-out: the caption reward, by a detector that no search sees; in (0, 1]"
    held_out = ()
    file = "judge.safetensors"
    network = ConvNeXtDetector


def count_probability(probability: Tensor, counts: Tensor) -> Tensor:
    """Poisson-binomial probability (B,), in float64, that exactly ``counts`` of n independent events happen.

    Args:
        probability: Probability (B, n) of each event.
        counts: Numbers of events (B,), from 0 to n.
    """
    rows, n = probability.shape
    law = torch.zeros(rows, n + 1, dtype=torch.float64)
    law[:, 0] = 1
    for p in torch.split(probability.double(), 1, dim=1):
        law = law * (1 - p) + torch.nn.functional.pad(law[:, :-1], (1, 0)) * p
    return law.gather(1, counts[:, None])[:, 0]


def relation_probability(peaks: Peaks, row: int, caption: Caption) -> Tensor:
    """Soft share of the pairs of peaks, weighted by their probabilities, that satisfy the caption's relation."""
    kinds = [_KIND_NAMES.index(group.kind) for group in caption.groups]
    first, second = kinds if caption.relation in ("left of", "above") else kinds[::-1]
    place = (peaks.x if "of" in caption.relation else peaks.y)[row].double()
    weights = peaks.probability[row, first, :, None] * peaks.probability[row, second, None, :]
    apart = ((place[second, None, :] - place[first, :, None]) / _SOFTNESS).sigmoid()
    return (weights * apart).sum() / weights.sum().clamp_min(1e-12)


def caption_facts(peaks: Peaks, captions: Sequence[Caption]) -> list[Tensor]:
    """Probabilities, for each picture, that each count and the relation, if the caption has one, are right."""
    groups = [(row, group) for row, caption in enumerate(captions) for group in caption.groups]
    rows = [row for row, _ in groups]
    kinds = [_KIND_NAMES.index(group.kind) for _, group in groups]
    counts = count_probability(peaks.probability[rows, kinds], torch.tensor([group.count for _, group in groups]))
    facts: list[list[Tensor]] = [[] for _ in captions]
    for row, probability in zip(rows, counts, strict=True):
        facts[row].append(probability)
    for row, caption in enumerate(captions):
        if caption.relation != "and":
            facts[row].append(relation_probability(peaks, row, caption))
    return [torch.stack(of_row).clamp_min(1e-100) for of_row in facts]
