"""Decoded samples as pictures and films."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.files.media import FRAME_MILLISECONDS


def as_bytes(pixels: Tensor) -> Tensor:
    """Pixels (..., 3, H, W) in [0, 1] as uint8, rounded, as pictures are saved."""
    return (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def as_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels (B, 3, H, W) in [0, 1] as pictures of PIL."""
    return [Image.fromarray(row.permute(1, 2, 0).contiguous().numpy()) for row in as_bytes(pixels)]


def from_pictures(pictures: list[Image.Image]) -> Tensor:
    """Pictures of one size as pixels (B, 3, H, W) float32 in [0, 1]."""
    stacked = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def picture(sample: Tensor) -> Image.Image:
    """A decoded sample as a picture of its own size, so that a reward says the same of the file as of the sample.

    Args:
        sample: (3, H, W) in [0, 1].

    Raises:
        RollflowError: If the sample is no image.
    """
    if sample.ndim != 3 or sample.shape[0] != 3 or 0 in sample.shape:
        raise RollflowError(f"a picture needs a sample of shape (3, H, W), not {tuple(sample.shape)}")
    return as_pictures(sample[None])[0]


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def is_film(sample: Tensor) -> bool:
    """Whether a decoded sample is of frames (F, 3, H, W)."""
    return sample.ndim == 4


def still(sample: Tensor) -> Tensor:
    """The picture (3, H, W) that stands for a sample: a picture itself, a film's middle frame."""
    return sample[len(sample) // 2] if is_film(sample) else sample


def webp(sample: Tensor) -> bytes:
    """A picture (3, H, W), or a film (F, 3, H, W) as an animation, in [0, 1] as a WebP file, without loss."""
    first, *others = [picture(frame) for frame in (sample if is_film(sample) else sample[None])]
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, lossless=True)
    return buffer.getvalue()


def sample_files(sample: Tensor, image: str, film: str) -> dict[str, bytes]:
    """Files of a sample by name: a picture, or a still picture of a film and all of it."""
    files = {image: png(picture(still(sample)))}
    return {**files, film: webp(sample)} if is_film(sample) else files


ENCODERS: dict[str, Callable[[Tensor], bytes]] = {
    "": lambda sample: png(picture(still(sample))),
    ".png": lambda sample: png(picture(still(sample))),
    ".webp": webp,
}
"""What makes a file of a sample, by the suffix of its name; none loses a bit, but a PNG of a film is of one frame."""
