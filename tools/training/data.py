"""Rendered scenes: random captions, and sprites placed so that the caption is true for the picture."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rollflow.models.scenes.grammar import BACKGROUNDS, KINDS, RELATIONS, Caption, Group

SIDE = 64
KIND_NAMES = tuple(KINDS)
_SPRITE_SIZES = range(9, 26)
_COUNT_WEIGHTS = np.array([1, 1, 1, 1, 0.8, 0.7, 0.6, 0.5]) / 6.6
_COLOURS = {
    "grass": (146, 198, 118),
    "snow": (246, 248, 250),
    "sky": (160, 205, 240),
    "night": (38, 42, 84),
    "sand": (236, 214, 160),
    "candy": (248, 190, 206),
}


@dataclass(frozen=True)
class Scene:
    """A rendered picture and its actual contents.

    Args:
        caption: Caption that is true for the picture.
        pixels: (64, 64, 3) uint8.
        kinds: (objects,) class number of each object.
        centres: (objects, 2) x and y in pixels.
        sizes: (objects,) side of each sprite in pixels.
    """

    caption: Caption
    pixels: NDArray[np.uint8]
    kinds: NDArray[np.int64]
    centres: NDArray[np.float64]
    sizes: NDArray[np.int64]


@functools.cache
def _sprites() -> dict[tuple[int, int], NDArray[np.float32]]:
    """Return the premultiplied RGBA sprite of every (kind, size)."""
    sheet = Image.open(Path(__file__).with_name("sprites.png"))
    side = sheet.height
    sprites = {}
    for kind in range(len(KINDS)):
        sprite = sheet.crop((kind * side, 0, (kind + 1) * side, side))
        for size in _SPRITE_SIZES:
            small = np.asarray(sprite.resize((size, size), Image.Resampling.LANCZOS), np.float32).copy()
            small[..., :3] *= small[..., 3:] / 255
            sprites[kind, size] = small
    return sprites


def draw_caption(rng: np.random.Generator, *, held_out: bool = False, few: float = 0.0) -> Caption:
    """Draw a random caption, from the evaluation tenth or from the training nine tenths.

    Args:
        rng: Random number generator.
        held_out: Whether to draw from the evaluation tenth.
        few: Probability of drawing only from captions with up to four objects.
    """
    most = 4 if few and rng.random() < few else 16
    while True:
        kinds = rng.choice(len(KINDS), size=1 if rng.random() < 0.35 else 2, replace=False)
        groups = tuple(Group(int(rng.choice(8, p=_COUNT_WEIGHTS)) + 1, KIND_NAMES[kind]) for kind in kinds)
        relation = RELATIONS[rng.integers(len(RELATIONS))] if len(groups) == 2 else "and"
        caption = Caption(groups, relation, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
        if caption.total <= most and caption.held_out == held_out:
            return caption


def _regions(caption: Caption, rng: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Return the rectangle (x0, y0, x1, y1) in the unit square that each group may occupy."""
    if caption.relation == "and":
        return [(0.0, 0.0, 1.0, 1.0)] * len(caption.groups)
    first, second = (group.count for group in caption.groups)
    if caption.relation in ("right of", "below"):
        first, second = second, first
    share = first / (first + second)
    cut = float(np.clip(0.5 + 0.6 * (share - 0.5) + rng.uniform(-0.06, 0.06), 0.28, 0.72))
    if caption.relation in ("left of", "right of"):
        parts = [(0.0, 0.0, cut, 1.0), (cut, 0.0, 1.0, 1.0)]
    else:
        parts = [(0.0, 0.0, 1.0, cut), (0.0, cut, 1.0, 1.0)]
    return parts if caption.relation in ("left of", "above") else parts[::-1]


def _size_range(total: int) -> tuple[int, int]:
    for most, sizes in ((2, (17, 24)), (4, (15, 20)), (6, (14, 17)), (9, (12, 15)), (12, (11, 13))):
        if total <= most:
            return sizes
    return 10, 12


def _place(caption: Caption, rng: np.random.Generator, spacing: float) -> tuple[NDArray[np.float64], int]:
    """Choose the top-left corners of all objects, in caption order, and their common size."""
    low, high = _size_range(caption.total)
    size = int(rng.integers(low, high + 1))
    while True:
        placed: list[NDArray[np.float64]] = []
        for group, (x0, y0, x1, y1) in zip(caption.groups, _regions(caption, rng), strict=True):
            least = np.array([x0, y0]) * SIDE
            most = np.maximum(np.array([x1, y1]) * SIDE - size, least)
            for _ in range(group.count):
                tries = rng.uniform(least, most, size=(64, 2))
                if placed:
                    gaps = np.abs(tries[:, None] - np.stack(placed)[None]).max(-1).min(-1)
                    tries = tries[gaps >= spacing * size]
                if not len(tries):
                    break
                placed.append(tries[0])
        if len(placed) == caption.total:
            return np.stack(placed), size
        size = max(size - (rng.random() < 0.3), _SPRITE_SIZES[0])


def render(caption: Caption, rng: np.random.Generator, spacing: float = 0.95) -> Scene:
    """Render a scene for which ``caption`` is true.

    Args:
        caption: Caption of the scene.
        rng: Random number generator.
        spacing: Smallest distance of two sprites in units of their side, along x or y; below 1 they may touch.
    """
    corners, size = _place(caption, rng, spacing)
    kinds = np.repeat([KIND_NAMES.index(group.kind) for group in caption.groups], [g.count for g in caption.groups])
    colour = np.array(_COLOURS[caption.background], np.float32) + rng.uniform(-6, 6, 3)
    shade = np.linspace(-1, 1, SIDE, dtype=np.float32)[:, None, None] * rng.uniform(-6, 6)
    canvas = np.broadcast_to(colour + shade, (SIDE, SIDE, 3)).astype(np.float32).copy()
    centres = np.empty((len(kinds), 2))
    sizes = np.empty(len(kinds), np.int64)
    for i, (kind, corner) in enumerate(zip(kinds, corners, strict=True)):
        own = int(np.clip(size + rng.integers(-1, 2), _SPRITE_SIZES[0], _SPRITE_SIZES[-1]))
        x, y = (int(np.clip(round(c), 0, SIDE - own)) for c in corner)
        sprite = _sprites()[int(kind), own]
        patch = canvas[y : y + own, x : x + own]
        patch *= 1 - sprite[..., 3:] / 255
        patch += sprite[..., :3]
        centres[i], sizes[i] = (x + own / 2, y + own / 2), own
    return Scene(caption, np.clip(canvas, 0, 255).astype(np.uint8), kinds, centres, sizes)


def layout_of(scene: Scene) -> Tensor:
    """Return (8, 8) uint8: 1 + class number of the object centred in each cell of 8 x 8 pixels, 0 if there is none."""
    cells = torch.zeros(8, 8, dtype=torch.uint8)
    for kind, (x, y) in zip(scene.kinds, scene.centres, strict=True):
        cells[int(y * 8 // SIDE), int(x * 8 // SIDE)] = int(kind) + 1
    return cells


def pixels_of(scenes: list[Scene]) -> Tensor:
    """Stack the pixels of scenes as (N, 3, 64, 64) uint8."""
    return torch.from_numpy(np.stack([scene.pixels for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def sheet(images: NDArray[np.uint8], columns: int, scale: int = 2) -> Image.Image:
    """Tile (N, 64, 64, 3) pictures into one."""
    rows = -(-len(images) // columns)
    canvas = np.zeros((rows * (SIDE + 1), columns * (SIDE + 1), 3), np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        canvas[y * (SIDE + 1) : y * (SIDE + 1) + SIDE, x * (SIDE + 1) : x * (SIDE + 1) + SIDE] = image
    return Image.fromarray(canvas).resize((canvas.shape[1] * scale, canvas.shape[0] * scale), Image.Resampling.NEAREST)
