"""CLIPScore."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rollflow.rewards.base import Card
from rollflow.rewards.clip.clip import ClipReward

W = 2.5
"""Factor that spreads the scores over [0, 1] (section 3 of the paper)."""


class CLIPScore(ClipReward):
    """The agreement of a picture's content with its prompt.

        r(x, c) = w max(cos(x, "A photo depicts " + c), 0),  w = 2.5

    Hessel et al. 2021, "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", arXiv 2104.08718, section
    3. Prefix, truncation and preprocessing follow the authors' clipscore.py (CLIPCapDataset, CLIPImageDataset). Below a
    cosine of 0 there is no gradient. Deviation: float32 on every device; the authors use float16 on a GPU (where the
    example of their README gives 0.8584 instead of 0.8585).

    Cost: one ViT-B/32 pass per picture.
    """

    name = "clipscore"
    bounds = (0.0, W)
    description = "agreement of picture and prompt: 2.5 times CLIP's cosine; in [0, 2.5], mostly below 1"
    published = "openai/clip-vit-base-patch32"
    prefix = "A photo depicts "
    card = Card(
        range="[0, 2.5], mostly 0.5 to 1",
        download="0.6 GB",
        memory="0.6 GB",
        licence="MIT",
        reference="Hessel et al. 2021, arXiv 2104.08718",
    )

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return W * self.cosines(pixels, prompts).clamp_min(0)
