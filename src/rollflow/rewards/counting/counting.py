"""Rewards that compare the number of objects in a picture with the numbers that the prompt asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rollflow.rewards.counting.base import CountsObjects
from rollflow.rewards.counting.smooth_counting import SmoothCounting


class Counting(CountsObjects):
    """Minus the squared errors of the counts that the prompt asks for.

        reward = -sum over requested things c of (n_c - asked_c)^2

    The quantity reward of arXiv 2503.19385, section 6: n_c is the number of GroundingDINO's boxes, filtered by the
    masks of SAM. The paper does not say how; the filter (``BoxFilter``) and the sizes of the networks are ours. The
    settings are those of ``CountsObjects``.

    Raises:
        NothingAsked: When scoring, if a prompt asks for no counts.
    """

    name = "counting"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    description = "minus the squared errors of the requested counts, by GroundingDINO and SAM; 0 is perfect"
    surrogate = SmoothCounting

    def make_surrogate(self) -> SmoothCounting:
        return SmoothCounting.sharing(self)

    @torch.no_grad()
    def counts(self, pixels: Tensor, names: Sequence[str]) -> Tensor:
        """Count (B, names) the objects of each name in each picture (B, 3, H, W)."""
        counts = torch.zeros(len(pixels), len(names), dtype=torch.long)
        for row, (picture, boxes) in enumerate(self.proposed(pixels, names)):
            boxes = boxes.where(self.filter.promising(boxes))
            objects = boxes.where(self.distinct(picture, boxes))
            counts[row] = objects.kinds.bincount(minlength=len(names)).cpu()
        return counts

    def compared(self, pixels: Tensor, names: Sequence[str], wanted: Tensor) -> Tensor:
        return self.compare(self.counts(pixels, names), wanted)

    def compare(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Rewards (B,), in float64, of counts (B, things)."""
        return -(found - wanted).square().sum(1).double()


class CountingAccuracy(Counting):
    """Whether all counts are right: 1 or 0 (the accuracy of arXiv 2503.19385, section 6).

        reward = 1 if n_c = asked_c for every requested thing c, else 0

    The settings are those of ``Counting``.

    Raises:
        NothingAsked: When scoring, if a prompt asks for no counts.
    """

    name = "counting-accuracy"
    bounds = (0.0, 1.0)
    zero_is_perfect = False
    description = "1 if all requested counts are right, else 0, by GroundingDINO and SAM"
    card = Counting.card._replace(range="0 or 1")

    def compare(self, found: Tensor, wanted: Tensor) -> Tensor:
        return (found == wanted).all(1).double()
