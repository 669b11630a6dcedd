"""Selection of the detected boxes to count: thresholds on scores, and one box per object by comparing masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rollflow.checks import real


class Boxes(NamedTuple):
    """The n boxes of one picture.

    Args:
        corners: Left, top, right and bottom (n, 4), as fractions of the picture's sides.
        scores: Scores (n,) in [0, 1].
        kinds: Class index (n,) of each box.
        peaks: Best score (n,) of any single word of the box's class, in [0, 1].
    """

    corners: Tensor
    scores: Tensor
    kinds: Tensor
    peaks: Tensor

    def where(self, kept: Tensor) -> Boxes:
        """Select the boxes for which ``kept`` (n,) is true."""
        return Boxes(*(values[kept] for values in self))


@dataclass(frozen=True)
class BoxFilter:
    """Selects the boxes of single objects.

    1. Discard boxes of which no word scores at least ``floor``.
    2. Discard boxes that cover at least the fraction ``whole`` of the picture, unless their class has no smaller box:
       such a box usually holds a group or nothing, but on its own it may be one large object.
    3. Discard boxes that score below ``relative`` times the best score of their class.
    4. Go through the boxes of all classes from the best score down, and discard a box if its mask is empty; if it
       shares more than ``within`` of the smaller mask with a kept box of its class (a part, a duplicate or a group); or
       if its overlap with a kept box of another class exceeds ``across`` of their union (one object with two names, of
       which the one with the better score is kept).

    The paper (arXiv 2503.19385, section 6) says only that boxes are filtered by masks. The steps and all constants are
    ours, except ``floor``, which is the ``box_threshold`` of GroundingDINO's own example (IDEA-Research/GroundingDINO,
    README), where it is also compared with the best token (util/inference.py, ``predict``), but of the whole text.

    Args:
        floor: Smallest score of the best word.
        relative: Smallest score within a class, as a fraction of the best one.
        whole: Fraction of the picture above which a box counts as covering all of it.
        within: Largest overlap of two boxes of a class, as a fraction of the smaller mask.
        across: Largest overlap of two boxes of different classes, as a fraction of the union; small parts of large
            objects, such as a hat on a cat, are counted.
    """

    floor: float = 0.35
    relative: float = 0.5
    whole: float = 0.9
    within: float = 0.5
    across: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            real(f"the fraction '{name}'", value, at_least=0, at_most=1)

    def sized(self, boxes: Boxes) -> Tensor:
        """Whether each box (n,) passes step 2, for the boxes that pass step 1."""
        width, height = (boxes.corners[:, 2:] - boxes.corners[:, :2]).clamp(0, 1).unbind(1)
        large, kept = width * height >= self.whole, torch.ones_like(boxes.peaks, dtype=torch.bool)
        for kind in set(boxes.kinds.tolist()):
            of_kind = boxes.kinds == kind
            if (of_kind & ~large & (boxes.peaks >= self.floor)).any():
                kept &= ~(of_kind & large)
        return kept

    def promising(self, boxes: Boxes) -> Tensor:
        """Whether each box (n,) passes steps 1 to 3, which need no mask."""
        kept = (boxes.peaks >= self.floor) & self.sized(boxes)
        for kind in set(boxes.kinds.tolist()):
            of_kind = kept & (boxes.kinds == kind)
            best = boxes.scores[of_kind].max() if of_kind.any() else 0
            kept = torch.where(boxes.kinds == kind, of_kind & (boxes.scores >= self.relative * best), kept)
        return kept

    def distinct(self, boxes: Boxes, masks: Tensor) -> Tensor:
        """Whether each box (n,) passes step 4.

        Args:
            boxes: Boxes that pass steps 1 to 3.
            masks: Boolean mask (n, h, w) of the object in each box.
        """
        flat = masks.flatten(1).float()
        shared = flat @ flat.T
        areas = shared.diagonal()
        smaller = torch.minimum(areas[:, None], areas)
        union = areas[:, None] + areas - shared
        same = boxes.kinds[:, None] == boxes.kinds
        clash = torch.where(same, shared > self.within * smaller, shared > self.across * union)
        kept = torch.zeros(len(areas), dtype=torch.bool, device=areas.device)
        for i in boxes.scores.argsort(descending=True, stable=True).tolist():
            kept[i] = bool(areas[i] > 0) and not (clash[i] & kept).any()
        return kept
