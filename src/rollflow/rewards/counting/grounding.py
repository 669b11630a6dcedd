"""GroundingDINO, which finds boxes of named things, and SAM, which segments the object in a box."""

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
"""Longest side of a picture whose shorter side is 800 (IDEA-Research/GroundingDINO, util/inference.py)."""


class Shorter(Fit):
    """Scales the shorter side to size, or to less if the longer side would exceed ``limit`` times the size.

    Like ``get_size_with_aspect_ratio`` in IDEA-Research/GroundingDINO, datasets/transforms.py.
    """

    limit = LONGEST / 800

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        short, long = sorted((tall, wide))
        size = height if long / short <= self.limit else round(self.limit * height * short / long)
        return by.resize(pixels, *(size if side == short else int(size * side / short) for side in (tall, wide)))


class Longer(Fit):
    """Scales the longer side to size (facebookresearch/segment-anything, utils/transforms.py)."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        scale = height / max(tall, wide)
        return by.resize(pixels, int(tall * scale + 0.5), int(wide * scale + 0.5))


def _prepare(side: int, fit: Fit) -> Preprocess:
    return Preprocess(side, fit, Bilinear(), IMAGENET_MEAN, IMAGENET_STD)


@dataclass(frozen=True)
class GroundingDetector:
    """Finds boxes of named things by GroundingDINO (Liu et al. 2023, arXiv 2303.05499).

    The names are read as one text, "airplane. camel.". The score of a box for a name is the mean over the name's tokens
    of the probability that the box matches the token, as in the authors' evaluation on COCO (demo/test_ap_on_coco.py).
    The class of a box is the name with the best score, and its peak the best score of that name's tokens.

    Args:
        network: A ``GroundingDinoForObjectDetection``.
        tokenizer: Tokenizer of the text.
        side: Shorter side of the network's input, in pixels; 800 in the authors' code.
    """

    network: Any
    tokenizer: Any
    side: int = 800

    def __call__(self, pixels: Tensor, names: Sequence[str]) -> list[Boxes]:
        """Propose boxes in each picture (B, 3, H, W)."""
        plain = [name.lower().replace(".", " ").strip() for name in names]
        text = self.tokenizer(". ".join(plain) + ".", return_offsets_mapping=True)
        ids = torch.tensor(text.input_ids, device=self.network.device).expand(len(pixels), -1)
        inputs = _prepare(self.side, Shorter())(pixels).to(self.network.device)
        output = self.network(pixel_values=inputs, input_ids=ids)
        matches = output.logits[..., : ids.shape[1]].sigmoid()
        of_names = [matches[..., span] for span in spans(plain, text.offset_mapping)]
        scores, kinds = torch.stack([of_name.mean(-1) for of_name in of_names], -1).max(-1)
        peaks = torch.stack([of_name.amax(-1) for of_name in of_names], -1).gather(-1, kinds[..., None])[..., 0]
        centre, size = output.pred_boxes.chunk(2, -1)
        corners = torch.cat([centre - size / 2, centre + size / 2], -1)
        return [Boxes(*of_picture) for of_picture in zip(corners, scores, kinds, peaks, strict=True)]


def spans(names: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Indices of each name's tokens in the text "one. two.".

    Args:
        names: Names, in their order in the text.
        offsets: First and last character of each token.
    """
    tokens, start = [], 0
    for name in names:
        end = start + len(name)
        tokens.append([i for i, (first, last) in enumerate(offsets) if start <= first < last <= end])
        start = end + len(". ")
    return tokens


@dataclass(frozen=True)
class Segmenter:
    """Segments the object in a box by SAM (Kirillov et al. 2023, arXiv 2304.02643).

    It computes one mask per box, as the authors recommend (notebooks/predictor_example.ipynb), at the resolution of the
    decoder, a quarter of the network's, which suffices to compare areas.

    Args:
        network: A ``SamModel``.
    """

    network: Any

    def __call__(self, picture: Tensor, corners: Tensor) -> Tensor:
        """Compute a boolean mask (n, h, w) for each box.

        Args:
            picture: Picture (3, H, W) in [0, 1].
            corners: Corners (n, 4) of the boxes, as fractions of the picture's sides.
        """
        side = self.network.config.vision_config.image_size
        inputs = _prepare(side, Longer())(picture[None])
        tall, wide = inputs.shape[-2:]
        square = F.pad(inputs, (0, side - wide, 0, side - tall)).to(self.network.device)
        boxes = corners * corners.new_tensor([wide, tall, wide, tall])
        logits = self.network(square, input_boxes=boxes[None], multimask_output=False).pred_masks[0, :, 0]
        scale = logits.shape[-1] / side
        masks: Tensor = logits[:, : round(tall * scale), : round(wide * scale)] > 0
        return masks
