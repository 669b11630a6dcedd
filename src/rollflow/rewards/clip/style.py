"""Style by Gram matrices of CLIP's features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollflow import checks
from rollflow.canonical import digest
from rollflow.errors import BadSetting
from rollflow.files.atomic import open_regular
from rollflow.files.media import MAX_BYTES, BadPicture, read_picture
from rollflow.files.pictures import from_pictures
from rollflow.rewards.base import Card
from rollflow.rewards.clip.clip import PictureTower
from rollflow.rewards.pretrained.preprocessing import Preprocess, Stretch

BLOCKS = 3
"""Of ViT-B/16 that the features have gone through: feats[2] in base_clip.py of FreeDoM and MPGD."""


class Likeness(NamedTuple):
    """The first blocks of CLIP's picture tower, and the Gram matrix (D, D) of the reference."""

    tower: Any
    gram: Tensor


class Style(PictureTower):
    """How like a picture's style is to that of a reference.

        r(x) = -|G(x) - G(x_ref)|_F,  G(x) = F(x)^T F(x)

    with F(x) (patches, D) the features of the patches after the third block of CLIP's ViT-B/16; 0 is the best, and
    what the reference itself has. The style guidance of Yu et al. 2023, "FreeDoM", arXiv 2303.09833, and of He et al.
    2023, "Manifold Preserving Guided Diffusion", arXiv 2311.16424, by the get_gram_matrix_residual of their
    base_clip.py. The prompt is not looked at; ``clipscore`` tells what becomes of it.

    Deviation: both pictures are resized alike, by an antialiased bicubic filter, so that the reference is its own best
    match; theirs are bilinear for the reference and bicubic without smoothing for the sample.

    Cost: three blocks of ViT-B/16 a picture.

    Args:
        reference: Path of a picture.
        checkpoint: Repository (``owner/name``) or folder of the CLIP; None is the published one.
        device: ``auto`` (CUDA, else Apple's, else the CPU) or a device of torch.
        batch_size: The most pictures at once; None is the reward's own.

    Raises:
        RollflowError: If the reference is missing, or no picture.
    """

    name = "style"
    bounds = (-math.inf, 0.0)
    description = "minus the distance in style to a reference picture, by CLIP's Gram matrices; 0 is the best"
    published = "openai/clip-vit-base-patch16"
    given_by = "reference=PATH and checkpoint=..."
    prepare = Preprocess(224, Stretch())
    held_out = ("clipscore",)
    card = Card(
        range="(-inf, 0], 0 is the best",
        download="0.6 GB",
        memory="0.2 GB",
        licence="MIT",
        reference="Yu et al. 2023, arXiv 2303.09833; He et al. 2023, arXiv 2311.16424",
    )

    def __init__(
        self,
        reference: str | None = None,
        checkpoint: str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        checks.as_annotated("reference of style", reference, str | None)
        if reference is None or not Path(reference).is_file():
            got = "none was given" if reference is None else f"there is none at '{reference}'"
            raise BadSetting(f"reward 'style' needs a reference picture, and {got}; give style(reference=PATH)")
        super().__init__(checkpoint, device, batch_size)
        self.reference = reference
        try:
            with open_regular(Path(reference), MAX_BYTES) as file:
                self._content = digest(file.read())
        except (OSError, ValueError) as error:
            raise BadSetting(f"the reference of reward 'style' cannot be read: {error}") from error

    @property
    def _settings(self) -> tuple[str, ...]:
        return (f"reference={self._content}",)  # wherever it lies

    def _networks(self) -> Likeness:
        tower = self._clip().vision_model
        tower.encoder.layers = tower.encoder.layers[:BLOCKS]
        with torch.no_grad():
            return Likeness(tower, self._grams(tower, self.loaded(_pixels_of, self.reference))[0])

    def _grams(self, tower: Any, pixels: Tensor) -> Tensor:
        features: Tensor = tower(pixel_values=self.prepared(pixels)).last_hidden_state[:, 1:]
        return features.transpose(1, 2) @ features

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        tower, gram = self.networks
        distances: Tensor = torch.linalg.matrix_norm(self._grams(tower, pixels) - gram)
        return -distances


def _pixels_of(path: str) -> Tensor:
    try:
        return from_pictures([read_picture(path)])
    except BadPicture as error:
        raise ValueError(error) from error
