"""JPEG file sizes as rewards, which need no trained model."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rollflow.files.pictures import as_pictures
from rollflow.rewards.base import Card, PictureReward

QUALITY = 95
REFERENCE = "Black et al. 2023, arXiv 2305.13301, section 5"


def kilobytes(pixels: Tensor) -> Tensor:
    """Sizes (B,) of pictures (B, 3, H, W) in [0, 1] as JPEG files, in units of 1000 bytes.

    The files have quality 95 and colour at half resolution (PIL's default), as in the published code of DDPO.
    """
    sizes = []
    for picture in as_pictures(pixels):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY)
        sizes.append(buffer.tell() / 1000)
    return torch.tensor(sizes, dtype=torch.float64)


class JpegCompressibility(PictureReward):
    """Minus the size of the picture's JPEG file: r(x) = -|JPEG_95(x)| / 1000 bytes.

    Black et al. 2023 (DDPO), arXiv 2305.13301, section 5. Sizes grow with the resolution; compare only pictures of the
    same size.
    """

    name = "jpeg-compressibility"
    bounds = (-math.inf, 0.0)
    description = "minus the size of the picture as a JPEG file, in kB; below 0"
    card = Card("below 0, in kB", "nothing", "nothing", "none needed", REFERENCE)

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return -kilobytes(pixels)


class JpegIncompressibility(PictureReward):
    """The size of the picture's JPEG file: r(x) = |JPEG_95(x)| / 1000 bytes.

    Black et al. 2023 (DDPO), arXiv 2305.13301, section 5. Sizes grow with the resolution; compare only pictures of the
    same size.
    """

    name = "jpeg-incompressibility"
    bounds = (0.0, math.inf)
    description = "size of the picture as a JPEG file, in kB; above 0"
    card = Card("above 0, in kB", "nothing", "nothing", "none needed", REFERENCE)

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return kilobytes(pixels)
