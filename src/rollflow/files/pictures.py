"""Decoded samples as pictures and films."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.files.media import FRAME_MILLISECONDS


def as_bytes(pixels: Tensor) -> Tensor:
    """Convert pixels (..., 3, H, W) in [0, 1] to uint8, rounded as in saved pictures."""
    return (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def as_pictures(pixels: Tensor) -> list[Image.Image]:
    """Convert pixels (B, 3, H, W) in [0, 1] to PIL images."""
    return [Image.fromarray(row.permute(1, 2, 0).contiguous().numpy()) for row in as_bytes(pixels)]


def from_pictures(pictures: list[Image.Image]) -> Tensor:
    """Convert pictures of the same size to pixels (B, 3, H, W), float32 in [0, 1]."""
    stacked = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def picture(sample: Tensor) -> Image.Image:
    """Convert a decoded sample to a picture of the same size, so that file and sample have the same reward.

    Args:
        sample: (3, H, W) pixels in [0, 1].

    Raises:
        RollflowError: If the sample is not an image.
    """
    if sample.ndim != 3 or sample.shape[0] != 3 or 0 in sample.shape:
        raise RollflowError(f"a picture needs a sample of shape (3, H, W), not {tuple(sample.shape)}")
    return as_pictures(sample[None])[0]


def png(image: Image.Image) -> bytes:
    """Encode a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def is_film(sample: Tensor) -> bool:
    """Whether a decoded sample is a film: frames (F, 3, H, W)."""
    return sample.ndim == 4


def is_visible(shape: Sequence[int]) -> bool:
    """Whether samples of a shape are pictures (3, H, W) or films (F, 3, H, W)."""
    return len(shape) in (3, 4) and shape[-3] == 3 and 0 not in shape


def pictures(sample: Tensor) -> list[Image.Image]:
    """Convert a decoded sample to pictures: one of a picture, and the frames of a film.

    Raises:
        RollflowError: If the sample is neither.
    """
    return [picture(frame) for frame in (sample if is_film(sample) else sample[None])]


def still(sample: Tensor) -> Tensor:
    """Return the picture (3, H, W) that represents a sample: the sample itself, or the middle frame of a film."""
    return sample[len(sample) // 2] if is_film(sample) else sample


def webp(sample: Tensor) -> bytes:
    """Encode a picture (3, H, W) or a film (F, 3, H, W), with pixels in [0, 1], as a lossless WebP file."""
    first, *others = pictures(sample)
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, lossless=True)
    return buffer.getvalue()


def sample_files(sample: Tensor, image: str, film: str) -> dict[str, bytes]:
    """Encode a sample as files by name: its picture, and for a film also the whole animation."""
    files = {image: png(picture(still(sample)))}
    return {**files, film: webp(sample)} if is_film(sample) else files


ENCODERS: dict[str, Callable[[Tensor], bytes]] = {
    "": lambda sample: png(picture(still(sample))),
    ".png": lambda sample: png(picture(still(sample))),
    ".webp": webp,
}
"""Lossless encoder of a sample for each suffix of a file name; a PNG of a film holds its middle frame alone."""
