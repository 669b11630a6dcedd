"""Rewards for the embedded models: how well the objects of a scene match its caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rollflow.models.scenes.grammar import Caption, parse
from rollflow.rewards.scenes.base import KIND_NAMES, PACKAGED, SceneReward
from rollflow.rewards.scenes.detectors import ConvNeXtDetector, Peaks, PyramidDetector, SceneDetector
from rollflow.rewards.scenes.smooth_count import SmoothCountReward

_SOFTNESS = 0.05


class CountReward(SceneReward):
    """Minus the squared errors of the counts that the caption asks for.

        reward = -sum over kinds of (found - asked)^2,  0 is perfect

    The quantity reward of Kim et al. 2025 (arXiv 2503.19385, section 6), with the packaged detector in place of
    GroundingDINO.
    """

    name = "count"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    card = PACKAGED._replace(range="minus infinity to 0, whole numbers", reference="arXiv 2503.19385, section 6")
    description = "minus the squared errors of the requested counts; 0 is perfect"
    held_out = ("judge",)
    surrogate = SmoothCountReward
    file = "detector.safetensors"
    network = PyramidDetector

    def make_surrogate(self) -> SmoothCountReward:
        return SmoothCountReward.sharing(self)

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.minus_rss(pixels, prompts)


class JudgeReward(SceneReward):
    """The reward ``count`` computed by the held-out judge, which differs in architecture, seed and augmentation."""

    name = "judge"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    card = PACKAGED._replace(range="minus infinity to 0, whole numbers")
    description = "held-out: the count reward, by a detector that no search sees"
    file = "judge.safetensors"
    network = ConvNeXtDetector

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.minus_rss(pixels, prompts)


class CaptionReward(SceneReward):
    """A smooth probability that the caption is true, differentiable with respect to the picture.

    Every peak of the heat map is an object with its calibrated probability, independently of the others, so that the
    count of a kind has a Poisson-binomial distribution; a relation is true to the extent that pairs of peaks, weighted
    by their probabilities, satisfy it. The reward is the geometric mean of the probabilities of the caption's facts
    (each count, and the relation), in (0, 1]. It ranks pictures as the joint probability does, but does not underflow.
    """

    name = "caption"
    bounds = (0.0, 1.0)
    card = PACKAGED._replace(range="0 to 1")
    description = "smooth probability that the counts and the relation are right; differentiable; in (0, 1]"
    differentiable = True
    held_out: ClassVar[tuple[str, ...]] = ("judge",)
    file = "detector.safetensors"
    network: type[SceneDetector] = PyramidDetector

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        captions = [parse(prompt) for prompt in prompts]
        facts = caption_facts(self.peaks(pixels), captions)
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
    wide = probability.double()
    # Column n holds the probability of no event; the columns before it, of negative numbers, stay 0 and are used up one
    # by one, so that nothing needs to be padded. No count depends on larger ones.
    law = torch.zeros(rows, n + 1 + max(counts.tolist(), default=0), dtype=torch.float64)
    law[:, n] = 1
    for p, q in zip(torch.split(wide, 1, dim=1), torch.split(1 - wide, 1, dim=1), strict=True):
        law = law[:, 1:] * q + law[:, :-1] * p
    return law.gather(1, counts[:, None])[:, 0]


def relation_probability(peaks: Peaks, present: Tensor, row: int, caption: Caption) -> Tensor:
    """Soft share of the pairs of peaks, weighted by their probabilities, that satisfy the caption's relation.

    Args:
        peaks: Peaks of all pictures.
        present: ``peaks.probability``, computed once for all pictures.
        row: Row of the picture.
        caption: Caption of the picture, with a relation.
    """
    kinds = [KIND_NAMES.index(group.kind) for group in caption.groups]
    first, second = kinds if caption.relation in ("left of", "above") else kinds[::-1]
    place = (peaks.x if "of" in caption.relation else peaks.y)[row].double()
    weights = present[row, first, :, None] * present[row, second, None, :]
    apart = ((place[second, None, :] - place[first, :, None]) / _SOFTNESS).sigmoid()
    return (weights * apart).sum() / weights.sum().clamp_min(1e-12)


def caption_facts(peaks: Peaks, captions: Sequence[Caption]) -> list[Tensor]:
    """Probabilities, for each picture, that each count and the relation, if the caption has one, are right."""
    groups = [(row, group) for row, caption in enumerate(captions) for group in caption.groups]
    rows = [row for row, _ in groups]
    kinds = [KIND_NAMES.index(group.kind) for _, group in groups]
    present = peaks.probability
    counts = count_probability(present[rows, kinds], torch.tensor([group.count for _, group in groups]))
    facts: list[list[Tensor]] = [[] for _ in captions]
    for row, probability in zip(rows, counts, strict=True):
        facts[row].append(probability)
    for row, caption in enumerate(captions):
        if caption.relation != "and":
            facts[row].append(relation_probability(peaks, present, row, caption))
    return [torch.stack(of_row).clamp_min(1e-100) for of_row in facts]
