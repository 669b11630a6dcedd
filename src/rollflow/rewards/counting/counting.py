"""Rewards of quantity: how many of each thing a picture shows, against how many were asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.prompts import asked
from rollflow.rewards.base import Card
from rollflow.rewards.counting.boxes import BoxFilter
from rollflow.rewards.counting.grounding import GroundingDetector, Segmenter
from rollflow.rewards.pretrained.base import Pretrained

SEGMENTER = "facebook/sam-vit-huge"


class NothingAsked(BadSetting):
    """A prompt that counts nothing, for a reward that counts."""


class CountingNetworks(NamedTuple):
    """What it takes to count.

    Args:
        detect: Finds boxes of what is named.
        segment: Finds the object in a box.
    """

    detect: GroundingDetector
    segment: Segmenter


class Counting(Pretrained):
    """Minus the residual sum of squares of the counts asked for.

        reward = -sum over asked things c of (n_c - asked_c)^2

    The paper's quantity reward (arXiv 2503.19385, section 6): n_c are the boxes of GroundingDINO, filtered by the masks
    of SAM. It does not say how; the filter is ours (``BoxFilter``), as are the sizes of the networks. What is asked is
    ``prompts.asked``: what was given with the prompt, else what its words count.

    Args:
        checkpoint: GroundingDINO's repository or folder.
        segmenter: SAM's repository or folder.
        device: ``auto`` or a device of torch.
        batch_size: The most pictures at once.
        side: Shorter side of the picture that GroundingDINO sees, in pixels.
        floor: Least score of a box by the best word of its name.
        relative: Least score of a box, as a share of the best of its class.
        whole: Share of the picture from which a box spans all of it, which is of a group.
        within: Most overlap of two of a class, as a share of the smaller mask.
        across: Most overlap of two of different classes, as a share of the union.

    Raises:
        NothingAsked: On scoring, if a prompt asks for nothing.
    """

    name = "counting"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    description = "minus the squared count errors of the asked things, by GroundingDINO and SAM; 0 is perfect"
    held_out = ("aesthetic",)
    structured = True
    published = "IDEA-Research/grounding-dino-base"
    batch_size = 4
    card = Card(
        range="minus infinity to 0, whole numbers",
        download="0.9 GB (GroundingDINO base) and 2.6 GB (SAM huge), by the number of weights",
        memory="3.5 GB in float32, and 1 to 4 GB to run",
        licence="Apache-2.0 (both)",
        reference="Liu et al. 2023, arXiv 2303.05499; Kirillov et al. 2023, arXiv 2304.02643; arXiv 2503.19385",
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        segmenter: str = SEGMENTER,
        device: str = "auto",
        batch_size: int | None = None,
        side: int = GroundingDetector.side,
        floor: float = BoxFilter.floor,
        relative: float = BoxFilter.relative,
        whole: float = BoxFilter.whole,
        within: float = BoxFilter.within,
        across: float = BoxFilter.across,
    ) -> None:
        super().__init__(checkpoint, device, batch_size)
        self.segmenter = checks.text(f"segmenter of {self.name}", segmenter)
        self.side = checks.whole(f"side of {self.name}", side, at_least=1, at_most=10**4)
        self.filter = BoxFilter(floor, relative, whole, within, across)

    @property
    def _settings(self) -> tuple[str, ...]:
        told = {"segmenter": self.segmenter, "side": self.side, **vars(self.filter)}
        usual = {"segmenter": SEGMENTER, "side": GroundingDetector.side, **vars(BoxFilter())}
        return tuple(f"{name}={value}" for name, value in told.items() if value != usual[name])

    def _networks(self) -> CountingNetworks:
        from transformers import AutoTokenizer, GroundingDinoForObjectDetection, SamModel

        detector = self.loaded(GroundingDinoForObjectDetection.from_pretrained, self.checkpoint, dtype=torch.float32)
        words = self.loaded(AutoTokenizer.from_pretrained, self.checkpoint)
        segmenter = self.loaded(SamModel.from_pretrained, self.segmenter, dtype=torch.float32)
        return CountingNetworks(
            GroundingDetector(self.ready(detector), words, self.side), Segmenter(self.ready(segmenter))
        )

    @torch.no_grad()
    def counts(self, pixels: Tensor, names: Sequence[str]) -> Tensor:
        """(B, names) How many of each each picture (B, 3, H, W) shows."""
        counts = torch.zeros(len(pixels), len(names), dtype=torch.long)
        for row, (picture, boxes) in enumerate(zip(pixels, self.networks.detect(pixels, names), strict=True)):
            boxes = boxes.where(self.filter.promising(boxes))
            if len(boxes.scores):
                kept = self.filter.distinct(boxes, self.networks.segment(picture, boxes.corners))
                counts[row] = boxes.kinds[kept].bincount(minlength=len(names)).cpu()
        return counts

    @classmethod
    def check_prompt(cls, prompt: str) -> None:
        _asked(prompt)

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        wanted = [_asked(prompt) for prompt in prompts]
        scores = torch.zeros(len(pixels), dtype=torch.float64)
        for names in {tuple(counts) for counts in wanted}:
            rows = [row for row, counts in enumerate(wanted) if tuple(counts) == names]
            target = torch.tensor([list(wanted[row].values()) for row in rows])
            scores[rows] = self.compare(self.counts(pixels[rows], names), target)
        return scores

    def compare(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Rewards (B,) float64 of counts (B, things)."""
        return -(found - wanted).square().sum(1).double()


class CountingAccuracy(Counting):
    """Whether all counts are as asked for: 1, else 0 (the paper's accuracy, arXiv 2503.19385, section 6).

        reward = 1 if n_c = asked_c for every asked thing c, else 0

    Settings are those of ``Counting``.

    Raises:
        NothingAsked: On scoring, if a prompt asks for nothing.
    """

    name = "counting-accuracy"
    bounds = (0.0, 1.0)
    zero_is_perfect = False
    description = "1 where all counts are as asked for, else 0, by GroundingDINO and SAM"
    card = Counting.card._replace(range="0 or 1")

    def compare(self, found: Tensor, wanted: Tensor) -> Tensor:
        return (found == wanted).all(1).double()


def _asked(prompt: str) -> Mapping[str, int]:
    counts = asked(prompt)
    if not counts:
        raise NothingAsked(
            f"the prompt '{prompt}' asks for no number of anything; say what to count, such as --ask airplanes=6"
        )
    return counts
