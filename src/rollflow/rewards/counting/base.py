"""The base of rewards that count the objects of a picture: settings, networks, and the boxes of single objects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.prompts import asked
from rollflow.rewards.base import Card
from rollflow.rewards.counting.boxes import Boxes, BoxFilter
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


class CountsObjects(Pretrained):
    """A reward that compares the objects that GroundingDINO and SAM find with the counts that the prompt asks for.

    The requested counts are those of ``prompts.asked``: given with the prompt, or else read from its words.

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
    """

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

    @classmethod
    def check_prompt(cls, prompt: str) -> None:
        asked_of(prompt)

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        wanted = [asked_of(prompt) for prompt in prompts]
        scores = torch.zeros(len(pixels), dtype=torch.float64)
        for names in {tuple(counts) for counts in wanted}:
            rows = [row for row, counts in enumerate(wanted) if tuple(counts) == names]
            target = torch.tensor([list(wanted[row].values()) for row in rows])
            scores[rows] = self.compared(pixels[rows], names, target)
        return scores

    @abstractmethod
    def compared(self, pixels: Tensor, names: Sequence[str], wanted: Tensor) -> Tensor:
        """Compare the objects in pictures (B, 3, H, W) with the counts that are wanted (B, names); returns (B,)."""

    def proposed(self, pixels: Tensor, names: Sequence[str]) -> Iterator[tuple[Tensor, Boxes]]:
        """Yield each picture (3, H, W) with all boxes that GroundingDINO proposes in it."""
        yield from zip(pixels, self.networks.detect(pixels, names), strict=True)

    def distinct(self, picture: Tensor, boxes: Boxes) -> Tensor:
        """Whether each box (n,) is the one of its object, by the masks of SAM."""
        if not len(boxes.scores):
            return torch.zeros_like(boxes.scores, dtype=torch.bool)
        return self.filter.distinct(boxes, self.networks.segment(picture, boxes.corners))


def asked_of(prompt: str) -> Mapping[str, int]:
    """Return the counts that a prompt asks for.

    Raises:
        NothingAsked: If it asks for none.
    """
    counts = asked(prompt)
    if not counts:
        raise NothingAsked(
            f"the prompt '{prompt}' asks for no number of anything; name the things to count, such as --ask airplanes=6"
        )
    return counts
