"""Preprocessing of pictures for networks: equal to PIL's to the last bit, or differentiable where gradients flow."""

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
"""Standard deviation of CLIP's training pictures, as the mean above (openai/CLIP, clip.py, _transform)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Filter(ABC):
    """A resampling filter.

    Attributes:
        of_pil: The filter in PIL, which antialiases when a picture shrinks.
        of_torch: The same filter in ``torch.nn.functional.interpolate``, with antialiasing.
    """

    of_pil: ClassVar[Image.Resampling]
    of_torch: ClassVar[str]

    def resize(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Resize pictures (B, 3, H, W) in [0, 1] to (B, 3, height, width).

        Pixels that require no gradient go through bytes and PIL, like those of a file; others stay floats and use the
        same filter, which agrees to about the rounding of a byte.
        """
        if pixels.shape[-2:] == (height, width):
            return pixels.float() if pixels.requires_grad else as_bytes(pixels).float() / 255
        if pixels.requires_grad:
            resized = pixels.float()
            for size in ((pixels.shape[-2], width), (height, width)):  # one side at a time, clamped, as PIL does
                resized = F.interpolate(resized, size, mode=self.of_torch, antialias=True).clamp(0, 1)
            return resized
        return from_pictures([picture.resize((width, height), self.of_pil) for picture in as_pictures(pixels)])


class Bicubic(Filter):
    """Keys' cubic filter with a = -0.5."""

    of_pil = Image.Resampling.BICUBIC
    of_torch = "bicubic"


class TensorBicubic(Bicubic):
    """The bicubic filter of torchvision for tensors, antialiased as since version 0.17, not rounded or clamped."""

    def resize(self, pixels: Tensor, height: int, width: int) -> Tensor:
        values = pixels.float() if pixels.requires_grad else as_bytes(pixels).float() / 255
        return F.interpolate(values, (height, width), mode=self.of_torch, antialias=True)


class Bilinear(Filter):
    """The triangle filter."""

    of_pil = Image.Resampling.BILINEAR
    of_torch = "bilinear"


class Fit(ABC):
    """A method to bring a picture of any shape to a given size."""

    @abstractmethod
    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        """Fit pictures (B, 3, H, W) in [0, 1] to (B, 3, height, width), padding with the colour ``fill``."""


class Stretch(Fit):
    """Scales the two sides independently."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        return by.resize(pixels, height, width)


class Crop(Fit):
    """Scales the shorter side to size and crops the centre, as torchvision's Resize and CenterCrop do."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        size = min(height, width)
        new = (size, int(size * wide / tall)) if tall <= wide else (int(size * tall / wide), size)
        resized = by.resize(pixels, *new)
        top, left = (self.margin(of - to) for of, to in zip(new, (height, width), strict=True))
        return resized[..., top : top + height, left : left + width]

    def margin(self, spare: int) -> int:
        """Number of the ``spare`` pixels that are cut off at the left or top."""
        return round(spare / 2)


class FloorCrop(Crop):
    """Crops like transformers' CLIP processor (image_transforms.py, center_crop): an odd pixel is cut at the end."""

    def margin(self, spare: int) -> int:
        return spare // 2


class Pad(Fit):
    """Pads the picture to a square, with the picture in the centre, and scales that."""

    def __call__(self, pixels: Tensor, height: int, width: int, by: Filter, fill: tuple[float, ...]) -> Tensor:
        tall, wide = pixels.shape[-2:]
        side = max(tall, wide)
        top, left = (side - tall) // 2, (side - wide) // 2
        square = pixels.new_tensor(fill).reshape(3, 1, 1).expand(len(pixels), 3, side, side).clone()
        square[..., top : top + tall, left : left + wide] = pixels
        return by.resize(square, height, width)


class Letterbox(Fit):
    """Scales the longer side to size and pads the shorter one, with the picture in the centre."""

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
    """Turns pictures (B, 3, H, W) in [0, 1] into a network's input (B, 3, size, size).

        y = (fit(x) - mean) / std

    Args:
        size: Side of the network's input, in pixels.
        fit: Method to make a picture of another shape square.
        by: Resampling filter.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        fill: Colour, in [0, 1], of the padding of ``Pad`` and ``Letterbox``.
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
