"""Rewards that compare the number of objects in a picture with the numbers that the prompt asks for."""

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
    """A prompt without counts, given to a reward that counts."""


class CountingNetworks(NamedTuple):
    """The networks of the counting rewards.

    Args:
        detect: Network that finds boxes of named things.
        segment: Network that segments the object in a box.
    """

    detect: GroundingDetector
    segment: Segmenter


class Counting(Pretrained):
    """Minus the squared errors of the counts that the prompt asks for.

        reward = -sum over requested things c of (n_c - asked_c)^2

    The quantity reward of arXiv 2503.19385, section 6: n_c is the number of GroundingDINO's boxes, filtered by the
    masks of SAM. The paper does not say how; the filter (``BoxFilter``) and the sizes of the networks are ours. The
    requested counts are those of ``prompts.asked``: given with the prompt, or else read from its words.

    Args:
        checkpoint: Repository or folder of GroundingDINO; None means the published one.
        segmenter: Repository or folder of SAM.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
        side: Shorter side of GroundingDINO's input, in pixels.
        floor: Smallest score of a box by the best word of its name.
        relative: Smallest score of a box, as a fraction of the best one of its class.
        whole: Fraction of the picture above which a box counts as covering all of it.
        within: Largest overlap of two boxes of a class, as a fraction of the smaller mask.
        across: Largest overlap of two boxes of different classes, as a fraction of the union.

    Raises:
        NothingAsked: When scoring, if a prompt asks for no counts.
    """

    name = "counting"
    bounds = (-math.inf, 0.0)
    zero_is_perfect = True
    description = "minus the squared errors of the requested counts, by GroundingDINO and SAM; 0 is perfect"
    held_out = ("aesthetic",)
    structured = True
    published = "IDEA-Research/grounding-dino-base"
    batch_size = 4
    card = Card(
        range="minus infinity to 0, whole numbers",
        download="about 0.9 GB (GroundingDINO base) and 2.6 GB (SAM huge)",
        memory="3.5 GB in float32, plus 1 to 4 GB while running",
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
        settings = {"segmenter": self.segmenter, "side": self.side, **vars(self.filter)}
        usual = {"segmenter": SEGMENTER, "side": GroundingDetector.side, **vars(BoxFilter())}
        return tuple(f"{name}={value}" for name, value in settings.items() if value != usual[name])

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
        """Count (B, names) the objects of each name in each picture (B, 3, H, W)."""
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


def _asked(prompt: str) -> Mapping[str, int]:
    counts = asked(prompt)
    if not counts:
        raise NothingAsked(
            f"the prompt '{prompt}' asks for no number of anything; name the things to count, such as --ask airplanes=6"
        )
    return counts
