"""PickScore."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rollflow.rewards.base import Card
from rollflow.rewards.clip.clip import Clip, ClipReward
from rollflow.rewards.pretrained.preprocessing import FloorCrop, Preprocess


class PickScore(ClipReward):
    """Which picture of a prompt people would pick: a CLIP-H tuned on their choices.

        r(x, c) = exp(s) cos(x, c),  s the model's logit scale

    The probability that x is preferred to y is sigmoid(r(x, c) - r(y, c)); only differences within a prompt mean
    anything. Kirstain et al. 2023, "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation",
    arXiv 2305.01569; pictures and texts as in the authors' README, by transformers' CLIP processor of
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K.

    Cost: one ViT-H/14 pass a picture.
    """

    name = "pickscore"
    description = "which picture of a prompt people would pick; about 15 to 25"
    published = "yuvalkirstain/PickScore_v1"
    tuned_from = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    prepare = Preprocess(224, FloorCrop())
    batch_size = 16
    card = Card(
        range="about 15 to 25, compared within a prompt",
        download="3.9 GB",
        memory="3.9 GB",
        licence="MIT (of its repository)",
        reference="Kirstain et al. 2023, arXiv 2305.01569",
    )

    def _networks(self) -> Clip:
        networks = super()._networks()
        most = float(networks.model.logit_scale.exp())
        self.bounds = (-most, most)  # a cosine is at most 1
        return networks

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        scale: Tensor = self.networks.model.logit_scale.exp()
        return scale * self.cosines(pixels, prompts)
