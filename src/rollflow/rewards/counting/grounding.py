"""GroundingDINO, which finds boxes of what is named, and SAM, which finds the object in a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rollflow.rewards.counting.boxes import Boxes
from rollflow.rewards.pretrained.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Bilinear, Filter, Fit, Preprocess

LONGEST = 1333
"""Side of a picture at most, where its shorter side is 800 (IDEA-Research/GroundingDINO, util/inference.py)."""


class Shorter(Fit):
    """The shorter side is scaled to size, unless the longer one would become more than ``limit`` times that.

    As ``get_size_with_aspect_ratio`` of IDEA-Research/GroundingDINO, datasets/transforms.py.
    """

    limit = LONGEST / 800

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        short, long = sorted((tall, wide))
        size = height if long / short <= self.limit else round(self.limit * height * short / long)
        return by.resize(pixels, *(size if side == short else int(size * side / short) for side in (tall, wide)))


class Longer(Fit):
    """The longer side is scaled to size (facebookresearch/segment-anything, utils/transforms.py)."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        scale = height / max(tall, wide)
        return by.resize(pixels, int(tall * scale + 0.5), int(wide * scale + 0.5))


def _prepare(side: int, fit: Fit) -> Preprocess:
    return Preprocess(side, fit, Bilinear(), IMAGENET_MEAN, IMAGENET_STD)


@dataclass(frozen=True)
class GroundingDetector:
    """Boxes of what is named (Liu et al. 2023, arXiv 2303.05499).

    The names are read as one text, "airplane. camel."; the score of a box for a name is the mean over its tokens of the
    probability that the box matches the token, as in the authors' evaluation on COCO (demo/test_ap_on_coco.py), and its
    class is the name with the best score. Its peak is the best of the tokens of that name.

    Args:
        network: A ``GroundingDinoForObjectDetection``.
        tokenizer: Its text's.
        side: Shorter side of the picture that it sees, in pixels; 800 in the authors' code.
    """

    network: Any
    tokenizer: Any
    side: int = 800

    def __call__(self, pixels: Tensor, names: Sequence[str]) -> list[Boxes]:
        """All boxes that it proposes in each picture (B, 3, H, W)."""
        told = [name.lower().replace(".", " ").strip() for name in names]
        text = self.tokenizer(". ".join(told) + ".", return_offsets_mapping=True)
        ids = torch.tensor(text.input_ids, device=self.network.device).expand(len(pixels), -1)
        seen = _prepare(self.side, Shorter())(pixels).to(self.network.device)
        found = self.network(pixel_values=seen, input_ids=ids)
        matches = found.logits[..., : ids.shape[1]].sigmoid()
        of_names = [matches[..., span] for span in spans(told, text.offset_mapping)]
        scores, kinds = torch.stack([of_name.mean(-1) for of_name in of_names], -1).max(-1)
        peaks = torch.stack([of_name.amax(-1) for of_name in of_names], -1).gather(-1, kinds[..., None])[..., 0]
        centre, size = found.pred_boxes.chunk(2, -1)
        corners = torch.cat([centre - size / 2, centre + size / 2], -1)
        return [Boxes(*of_picture) for of_picture in zip(corners, scores, kinds, peaks, strict=True)]


def spans(names: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Which tokens each name takes in "one. two.".

    Args:
        names: In their order in the text.
        offsets: For each token, the characters that it starts and ends at.
    """
    found, start = [], 0
    for name in names:
        end = start + len(name)
        found.append([i for i, (first, last) in enumerate(offsets) if start <= first < last <= end])
        start = end + len(". ")
    return found


@dataclass(frozen=True)
class Segmenter:
    """The mask of the object in a box (Kirillov et al. 2023, arXiv 2304.02643).

    One mask a box, as the authors advise (notebooks/predictor_example.ipynb), at the decoder's own resolution, a
    quarter of the network's: shares of masks are all that is asked for.

    Args:
        network: A ``SamModel``.
    """

    network: Any

    def __call__(self, picture: Tensor, corners: Tensor) -> Tensor:
        """(n, h, w) bool.

        Args:
            picture: (3, H, W) in [0, 1].
            corners: (n, 4) of boxes, as shares of its sides.
        """
        side = self.network.config.vision_config.image_size
        seen = _prepare(side, Longer())(picture[None])
        tall, wide = seen.shape[-2:]
        square = F.pad(seen, (0, side - wide, 0, side - tall)).to(self.network.device)
        boxes = corners * corners.new_tensor([wide, tall, wide, tall])
        logits = self.network(square, input_boxes=boxes[None], multimask_output=False).pred_masks[0, :, 0]
        scale = logits.shape[-1] / side
        masks: Tensor = logits[:, : round(tall * scale), : round(wide * scale)] > 0
        return masks
