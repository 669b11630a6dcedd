"""HPSv2 and HPSv2.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from rollflow.errors import RollflowError
from rollflow.rewards.base import Card
from rollflow.rewards.clip.clip import ClipReward
from rollflow.rewards.pretrained.preprocessing import Letterbox, Preprocess, TensorBicubic

_CARD = Card(
    range="about 0.2 to 0.3; compare only within a prompt",
    download="2 GB",
    memory="3.9 GB",
    licence="Apache-2.0",
    reference="Wu et al. 2023, arXiv 2306.09341",
)


class HPSv2(ClipReward):
    """Human preference by a CLIP-H that was tuned on 645,000 choices between pictures of the same prompt.

        r(x, c) = cos(x, c)

    Wu et al. 2023, "Human Preference Score v2", arXiv 2306.09341. Follows the authors' img_score.py, with pictures
    preprocessed as in open_clip/transform.py (image_transform with ResizeMaxSize). Scores are comparable only between
    pictures of one prompt and within one version. The published tables list 100 r. The weights are in open_clip's
    format and are converted to transformers' CLIP.

    Deviations: float32, where the authors use autocast to float16; and the antialiased resize that their code performs
    with torchvision 0.17 and later, where earlier versions did not antialias.

    Cost: one ViT-H/14 pass per picture.
    """

    name = "hpsv2"
    bounds = (-1.0, 1.0)
    description = "human preference score v2; compare only within a prompt; about 0.2 to 0.3"
    published = "xswu/HPSv2"
    tuned_from = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    prepare = Preprocess(224, Letterbox(), TensorBicubic())
    weights: ClassVar[str] = "HPS_v2_compressed.pt"
    batch_size = 16
    card = _CARD

    def _clip(self) -> Any:
        from transformers import CLIPConfig, CLIPModel

        saved = self.tensors(self.file(self.weights))
        if not isinstance(saved, dict) or "state_dict" not in saved:
            raise RollflowError(
                f"reward '{self.name}' cannot use the weights of '{self.checkpoint}': {self.weights} has no "
                "'state_dict', unlike the published file"
            )
        config = self.loaded(CLIPConfig.from_pretrained, self.base)
        return self.built(CLIPModel.from_pretrained, config, converted(saved["state_dict"]))

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.cosines(pixels, prompts)


class HPSv21(HPSv2):
    """HPSv2.1: the same network, tuned on better data (see the authors' README).

    r(x, c) = cos(x, c), as for ``HPSv2``, but the scores of the two versions are not comparable.
    """

    name = "hpsv2.1"
    description = "human preference score v2.1; compare only within a prompt; about 0.15 to 0.35"
    weights = "HPS_v2.1_compressed.pt"
    card = _CARD._replace(range="about 0.15 to 0.35; compare only within a prompt")


_NAMES = (
    (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"^transformer\.resblocks", "text_model.encoder.layers"),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
)
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


def converted(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of open_clip's ``CLIP`` to those of transformers' ``CLIPModel``.

    Parameters are renamed, projections transposed, and the stacked matrix of queries, keys and values is split.
    """
    return dict(pair for name, weight in weights.items() for pair in _renamed(name, weight))


def _renamed(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _PROJECTIONS:
        yield _PROJECTIONS[name], weight.T.contiguous()
        return
    new = name
    for pattern, replacement in _NAMES:
        new = re.sub(pattern, replacement, new)
    layer, stacked, kind = new.partition(".attn.in_proj_")
    if not stacked:
        yield new, weight
        return
    for role, part in zip("qkv", weight.chunk(3), strict=True):
        yield f"{layer}.self_attn.{role}_proj.{kind}", part
