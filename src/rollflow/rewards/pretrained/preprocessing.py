"""Pictures as networks expect them: what PIL makes of them, to the last bit, or what gradients can follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rollflow.files.pictures import as_bytes, as_pictures, from_pictures

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on (openai/CLIP, clip.py, _transform)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Filter(ABC):
    """How pictures are resized.

    Attributes:
        of_pil: The filter of PIL, which widens it by the factor where a picture gets smaller (antialiasing).
        of_torch: The same filter of ``torch.nn.functional.interpolate`` with antialiasing.
    """

    of_pil: ClassVar[Image.Resampling]
    of_torch: ClassVar[str]

    def resize(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 3, height, width).

        Pixels that require no gradient go through bytes and PIL, as those of a file would; others through floats, with
        the same filter, within about a byte's rounding.
        """
        if pixels.shape[-2:] == (height, width):
            return pixels.float() if pixels.requires_grad else as_bytes(pixels).float() / 255
        if pixels.requires_grad:
            made = pixels.float()
            for size in ((pixels.shape[-2], width), (height, width)):  # first one side, as PIL does, which clamps each
                made = F.interpolate(made, size, mode=self.of_torch, antialias=True).clamp(0, 1)
            return made
        return from_pictures([picture.resize((width, height), self.of_pil) for picture in as_pictures(pixels)])


class Bicubic(Filter):
    """Keys' cubic with a = -0.5."""

    of_pil = Image.Resampling.BICUBIC
    of_torch = "bicubic"


class TensorBicubic(Bicubic):
    """That of torchvision on tensors, smoothed as from version 0.17 on: values are neither rounded nor clamped."""

    def resize(self, pixels: Tensor, height: int, width: int) -> Tensor:
        given = pixels.float() if pixels.requires_grad else as_bytes(pixels).float() / 255
        return F.interpolate(given, (height, width), mode=self.of_torch, antialias=True)


class Bilinear(Filter):
    """The triangle."""

    of_pil = Image.Resampling.BILINEAR
    of_torch = "bilinear"


class Fit(ABC):
    """How a picture of any shape becomes one of a given size."""

    @abstractmethod
    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 3, height, width); ``fill`` is the colour of what is added."""


class Stretch(Fit):
    """Sides are scaled apart."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        return by.resize(pixels, height, width)


class Crop(Fit):
    """The shorter side is scaled to size, and the middle cut out, as torchvision's Resize and CenterCrop do."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        size = min(height, width)
        new = (size, int(size * wide / tall)) if tall <= wide else (int(size * tall / wide), size)
        resized = by.resize(pixels, *new)
        top, left = (self.margin(of - to) for of, to in zip(new, (height, width), strict=True))
        return resized[..., top : top + height, left : left + width]

    def margin(self, spare: int) -> int:
        """Of ``spare`` pixels, those cut off before the middle."""
        return round(spare / 2)


class FloorCrop(Crop):
    """As the CLIP processor of transformers crops (image_transforms.py, center_crop): an odd pixel goes at the end."""

    def margin(self, spare: int) -> int:
        return spare // 2


class Pad(Fit):
    """The picture becomes a square of colour ``fill`` first, itself in the middle."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        side = max(tall, wide)
        top, left = (side - tall) // 2, (side - wide) // 2
        square = pixels.new_tensor(fill).reshape(3, 1, 1).expand(len(pixels), 3, side, side).clone()
        square[..., top : top + tall, left : left + wide] = pixels
        return by.resize(square, height, width)


class Letterbox(Fit):
    """The longer side is scaled to size; what the shorter one lacks is filled, the picture in the middle."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        scale = min(height / tall, width / wide)
        new = (round(tall * scale), round(wide * scale))
        top, left = ((to - of) // 2 for of, to in zip(new, (height, width), strict=True))
        resized = by.resize(pixels, *new)
        boxed = resized.new_tensor(fill).reshape(3, 1, 1).expand(len(pixels), 3, height, width).clone()
        boxed[..., top : top + new[0], left : left + new[1]] = resized
        return boxed


@dataclass(frozen=True)
class Preprocess:
    """(B, 3, H, W) pixels in [0, 1] as a network takes them, (B, 3, size, size): fitted, then whitened.

        y = (fit(x) - mean) / std

    Args:
        size: Side, in pixels.
        fit: How a picture of another shape is made square.
        by: How it is resized.
        mean: Of each channel.
        std: Of each channel.
        fill: Colour, in [0, 1], of what a ``Pad`` or a ``Letterbox`` adds.
    """

    size: int
    fit: Fit = Crop()
    by: Filter = Bicubic()
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    fill: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __call__(self, pixels: Tensor) -> Tensor:
        fitted = self.fit(pixels, self.size, self.size, self.by, self.fill)
        mean, std = (fitted.new_tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        return (fitted - mean) / std
