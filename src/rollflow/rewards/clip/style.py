"""Style by Gram matrices of CLIP's features."""

from __future__ import annotations

import math
import os
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
"""Number of ViT-B/16's blocks before the features: feats[2] in base_clip.py of FreeDoM and MPGD."""


class Likeness(NamedTuple):
    """The first blocks of CLIP's vision encoder, and the Gram matrix (D, D) of the reference."""

    tower: Any
    gram: Tensor


class Style(PictureTower):
    """The similarity of a picture's style to that of a reference picture.

        r(x) = -|G(x) - G(x_ref)|_F,  G(x) = F(x)^T F(x)

    where F(x) (patches, D) are the features of the patches after the third block of CLIP's ViT-B/16. The best score is
    0, which the reference itself has. This is the style guidance of Yu et al. 2023, "FreeDoM", arXiv 2303.09833, and of
    He et al. 2023, "Manifold Preserving Guided Diffusion", arXiv 2311.16424 (get_gram_matrix_residual in their
    base_clip.py). The prompt is ignored; ``clipscore``, the held-out reward, measures how well it is still followed.

    Deviation: both pictures are resized in the same way, by an antialiased bicubic filter, so that the reference is its
    own best match; the authors resize the reference bilinearly and the sample bicubically without antialiasing.

    Cost: three blocks of ViT-B/16 per picture.

    Args:
        reference: Path of the reference picture.
        checkpoint: Hub repository (``owner/name``) or folder of the CLIP; None means the published one.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.

    Raises:
        RollflowError: If the reference is missing or not a picture.
    """

    name = "style"
    bounds = (-math.inf, 0.0)
    description = "minus the distance in style from a reference picture, by Gram matrices of CLIP; 0 is best"
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
        reference = None if reference is None else os.path.expanduser(reference)
        if reference is None or not Path(reference).is_file():
            problem = "none was given" if reference is None else f"there is no file '{reference}'"
            raise BadSetting(f"reward 'style' needs a reference picture, but {problem}; give style(reference=PATH)")
        super().__init__(checkpoint, device, batch_size)
        self.reference = reference
        try:
            with open_regular(Path(reference), MAX_BYTES) as file:
                self._content = digest(file.read())
        except (OSError, ValueError) as error:
            raise BadSetting(f"the reference of reward 'style' cannot be read: {error}") from error

    @property
    def _settings(self) -> tuple[str, ...]:
        return (f"reference={self._content}",)  # wherever the file is

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
