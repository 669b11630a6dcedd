"""PickScore."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rollflow.rewards.base import Card
from rollflow.rewards.clip.clip import Clip, ClipReward
from rollflow.rewards.pretrained.preprocessing import FloorCrop, Preprocess


class PickScore(ClipReward):
    """Human preference by a CLIP-H that was tuned on people's choices between two pictures of a prompt.

        r(x, c) = exp(s) cos(x, c),  s the model's logit scale

    The probability that x is preferred to y is sigmoid(r(x, c) - r(y, c)), so only differences within a prompt are
    meaningful. Kirstain et al. 2023, "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation",
    arXiv 2305.01569. Pictures and texts are preprocessed as in the authors' README, by transformers' CLIP processor of
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K.

    Cost: one ViT-H/14 pass per picture.
    """

    name = "pickscore"
    description = "human preference between pictures of a prompt; about 15 to 25"
    published = "yuvalkirstain/PickScore_v1"
    tuned_from = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    prepare = Preprocess(224, FloorCrop())
    batch_size = 16
    card = Card(
        range="about 15 to 25; compare only within a prompt",
        download="3.9 GB",
        memory="3.9 GB",
        licence="MIT (of its repository)",
        reference="Kirstain et al. 2023, arXiv 2305.01569",
    )

    def _networks(self) -> Clip:
        networks = super()._networks()
        scale = float(networks.model.logit_scale.exp())
        self.bounds = (-scale, scale)  # a cosine is at most 1
        return networks

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        scale: Tensor = self.networks.model.logit_scale.exp()
        return scale * self.cosines(pixels, prompts)
