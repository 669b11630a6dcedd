"""The two object detectors for scenes: heat maps of object centres, one channel per kind of object."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rollflow.models.scenes.grammar import KINDS

WEIGHTS = Path(__file__).parent / "weights"
SIDE = 64
"""Side of the pictures that the detectors were trained on, in pixels."""


class Peaks(NamedTuple):
    """The local maxima of heat maps, strongest first for each kind of object.

    Args:
        logits: Calibrated log-odds (B, kinds, n) that an object of the kind is there.
        x: Horizontal positions (B, kinds, n) of the centres, 0 at the left and 1 at the right.
        y: Vertical positions (B, kinds, n) of the centres, 0 at the top and 1 at the bottom.
    """

    logits: Tensor
    x: Tensor
    y: Tensor

    @property
    def probability(self) -> Tensor:
        """Probabilities (B, kinds, n) that the peaks are objects, in float64."""
        return self.logits.double().sigmoid()

    def counts(self) -> Tensor:
        """Number (B, kinds) of peaks that are more likely objects than not."""
        return (self.logits > 0).sum(-1)


def shrunk(pixels: Tensor) -> Tensor:
    """Shrink pictures (B, 3, 64 n, 64 n) to (B, 3, 64, 64) by the mean over squares of n x n pixels.

    Since the mean is taken in double precision, this restores to the last bit a picture that was enlarged by repeating
    pixels.
    """
    if pixels.shape[-1] == SIDE:
        return pixels
    return F.avg_pool2d(pixels.double(), pixels.shape[-1] // SIDE).to(pixels)


class SceneDetector(nn.Module):
    """A network that maps pictures (B, 3, 64, 64) in [0, 1] to heat-map logits (B, kinds, H, W).

    Log-odds are calibrated as ``scale * logit + offset``, fitted after training to maximize the likelihood of the
    counts in scenes that resemble generated ones.
    """

    scale: Tensor
    offset: Tensor
    exact: ClassVar[tuple[str, ...]]
    """Layers that stay in float32: the last, since logits rounded to bfloat16 would tie, and a tie is two peaks."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return pixels in [-1, 1], in the dtype of the first layer."""
        return (pixels * 2 - 1).to(next(self.parameters()).dtype)

    def heat(self, pixels: Tensor) -> Tensor:
        """Compute uncalibrated logits (B, kinds, H, W)."""
        raise NotImplementedError

    def peaks(self, pixels: Tensor, most: int = 24) -> Peaks:
        """Find the ``most`` strongest peaks of every kind.

        A cell is a peak if no kind is stronger in the 3 x 3 cells around it. Gradients flow through the values of the
        peaks, not through their positions. Cells that are not peaks have log-odds of -30.
        """
        heat = self.scale * self.heat(pixels).float() + self.offset
        strongest = F.max_pool2d(heat.amax(1, keepdim=True), 3, stride=1, padding=1)
        values = torch.where(heat == strongest, heat, heat.new_tensor(-30.0))
        logits, at = values.flatten(2).topk(most, dim=-1)
        height, width = heat.shape[2:]
        return Peaks(logits, (at % width + 0.5) / width, (at // width + 0.5) / height)


def _conv(a: int, b: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class PyramidDetector(SceneDetector):
    """The detector that searches use: a small feature pyramid of plain convolutions with a 16 x 16 heat map."""

    exact = ("head.2",)

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _conv(12, width), _conv(width, width, 2), _conv(width, width))
        self.coarse = nn.Sequential(_conv(width, 2 * width, 2), _conv(2 * width, 2 * width), _conv(2 * width, width))
        self.head = nn.Sequential(_conv(width, width), _conv(width, width), nn.Conv2d(width, len(KINDS), 1))
        nn.init.constant_(cast(Tensor, cast(nn.Conv2d, self.head[2]).bias), -4.0)

    def heat(self, pixels: Tensor) -> Tensor:
        fine = self.stem(self.normalized(pixels))
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0, mode="nearest")
        first, second, last = self.head
        return cast(Tensor, last(second(first(fine + coarse)).float()))


class _ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7 convolution and inverted pointwise bottleneck (Liu et al. 2022, arXiv 2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.up = nn.Conv2d(width, 3 * width, 1)
        self.down = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.down(F.gelu(self.up(self.norm(self.spatial(x))))))


class ConvNeXtDetector(SceneDetector):
    """The held-out judge, which no search sees: a ConvNeXt at one resolution, with patches of 4 x 4 pixels."""

    exact = ("head",)

    def __init__(self, width: int = 80, depth: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 6, stride=4, padding=1)
        self.blocks = nn.Sequential(*(_ConvNeXtBlock(width) for _ in range(depth)))
        self.head = nn.Conv2d(width, len(KINDS), 1)
        nn.init.constant_(cast(Tensor, self.head.bias), -4.0)

    def heat(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.blocks(self.stem(self.normalized(pixels))).float()))
