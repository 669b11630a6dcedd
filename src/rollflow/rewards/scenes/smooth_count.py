"""The log-probability of the counts that a caption asks for: what searches optimise in place of ``count``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rollflow.models.scenes.grammar import parse
from rollflow.rewards.poisson_binomial import log_count_probability
from rollflow.rewards.scenes.base import KIND_NAMES, PACKAGED, SceneReward
from rollflow.rewards.scenes.detectors import PyramidDetector


class SmoothCountReward(SceneReward):
    """The log-probability that a scene has the counts that its caption asks for; the surrogate of ``count``.

        reward = sum over kinds of log P(n_kind = asked)

    Every peak of the detector's heat map is an object with its calibrated probability, independently of the others, so
    that the count of a kind has a Poisson-binomial law. Where ``count`` is the same for many pictures, this says which
    of them is closest to being right, and it is differentiable with respect to the picture. Like ``count``, and unlike
    ``caption``, it ignores the relation. Unpublished as a reward.
    """

    name = "count-smooth"
    bounds = (-math.inf, 0.0)
    card = PACKAGED._replace(range="minus infinity to 0")
    description = "log-probability that the requested counts are right, by the detector of count; differentiable"
    held_out = ("judge",)
    differentiable = True
    file = "detector.safetensors"
    network = PyramidDetector

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        asked = [(row, kind, n) for row, prompt in enumerate(prompts) for kind, n in parse(prompt).counts().items()]
        rows = torch.tensor([row for row, _, _ in asked])
        kinds = torch.tensor([KIND_NAMES.index(kind) for _, kind, _ in asked])
        logits = self.peaks(pixels).logits[rows, kinds]
        of_counts = log_count_probability(logits, torch.tensor([n for _, _, n in asked]))
        return of_counts.new_zeros(len(prompts)).index_add(0, rows, of_counts)
