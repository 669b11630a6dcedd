"""Decoded samples as pictures and films."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from rollflow.errors import RollflowError

FRAMES_A_SECOND = 16
"""Of the films written; the rate at which Wan makes them."""


def picture(sample: Tensor, least: int = 256) -> Image.Image:
    """A decoded sample as a picture.

    Its pixels are kept: one narrower than ``least`` is enlarged by a whole factor, each pixel to a square.

    Args:
        sample: (3, H, W) in [0, 1].
        least: Smallest width, in pixels.

    Raises:
        RollflowError: If the sample is no image.
    """
    if sample.ndim != 3 or sample.shape[0] != 3:
        raise RollflowError(f"a picture needs a sample of shape (3, H, W), not {tuple(sample.shape)}")
    pixels = (sample.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    factor = max(1, -(-least // image.width))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


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


def webp(film: Tensor) -> bytes:
    """A film (F, 3, H, W) in [0, 1] as an animated WebP file, without loss."""
    first, *others = [picture(frame) for frame in film]
    buffer = io.BytesIO()
    duration = round(1000 / FRAMES_A_SECOND)
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=duration, loop=0, lossless=True)
    return buffer.getvalue()
