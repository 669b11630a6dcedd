"""Which of the boxes that a detector finds are objects to count: thresholds, and one box for one object by its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rollflow.checks import real


class Boxes(NamedTuple):
    """n boxes of one picture.

    Args:
        corners: (n, 4) left, top, right and bottom, as shares of the picture's sides.
        scores: (n,) in [0, 1].
        kinds: (n,) index of the class that each is of.
        peaks: (n,) in [0, 1], the best that any one word of its class scores.
    """

    corners: Tensor
    scores: Tensor
    kinds: Tensor
    peaks: Tensor

    def where(self, kept: Tensor) -> Boxes:
        """Those of which ``kept`` (n,) is true."""
        return Boxes(*(values[kept] for values in self))


@dataclass(frozen=True)
class BoxFilter:
    """Boxes of single objects.

    1. Boxes of which no word scores ``floor`` go.
    2. A box that spans the share ``whole`` of the picture is of a group, or of nothing: it goes where its class has a
       smaller one; alone, it may be one large object.
    3. Of each class, boxes that score below ``relative`` times its best go.
    4. From the best score down, over all classes: a box goes if its mask is empty; if it shares more than ``within`` of
       the smaller mask with a kept box of its class (a part, a duplicate, a group); or if its overlap with a kept box
       of another class is more than ``across`` of their union (one object, two names: the better claims the pixels).

    The paper (arXiv 2503.19385, section 6) says only that boxes are filtered by masks: the steps and all constants are
    ours, except ``floor``, the ``box_threshold`` of GroundingDINO's own example (IDEA-Research/GroundingDINO, README),
    which is held against the best token too (util/inference.py, ``predict``), there of the whole text.

    Args:
        floor: Least score of the best word.
        relative: Least score of a class, as a share of its best.
        whole: Share of the picture from which a box spans all of it.
        within: Most overlap of two of a class, as a share of the smaller mask.
        across: Most overlap of two of different classes, as a share of the union: small parts of large objects, such as
            a hat on a cat, are counted.
    """

    floor: float = 0.35
    relative: float = 0.5
    whole: float = 0.9
    within: float = 0.5
    across: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            real(f"the share '{name}'", value, at_least=0, at_most=1)

    def promising(self, boxes: Boxes) -> Tensor:
        """(n,) Whether each passes steps 1 to 3, for which no mask is needed."""
        width, height = (boxes.corners[:, 2:] - boxes.corners[:, :2]).clamp(0, 1).unbind(1)
        kept = boxes.peaks >= self.floor
        large = width * height >= self.whole
        for kind in set(boxes.kinds.tolist()):
            of_kind = kept & (boxes.kinds == kind)
            if (of_kind & ~large).any():
                of_kind &= ~large
            best = boxes.scores[of_kind].max() if of_kind.any() else 0
            kept = torch.where(boxes.kinds == kind, of_kind & (boxes.scores >= self.relative * best), kept)
        return kept

    def distinct(self, boxes: Boxes, masks: Tensor) -> Tensor:
        """(n,) Whether each passes step 4.

        Args:
            boxes: Those that are promising.
            masks: (n, h, w) bool, of the object in each.
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
