"""ImageReward."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rollflow.files.documents import read_json, read_text
from rollflow.rewards.base import Card
from rollflow.rewards.pretrained.base import Pretrained
from rollflow.rewards.pretrained.mlp import Stack
from rollflow.rewards.pretrained.preprocessing import Preprocess
from rollflow.rewards.pretrained.text_cache import cached

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the raw scores (ImageReward.py, ImageReward.__init__)."""

TOKENS = 35
"""Number of tokens that a prompt is truncated or padded to (ImageReward.py, score)."""

BERT = "google-bert/bert-base-uncased"
"""Repository of BLIP's tokenizer (models/BLIP/blip.py, init_tokenizer); no prompt contains the two tokens BLIP adds."""

HEAD_WIDTH = 64
"""Width per attention head of BLIP's vision transformers (models/BLIP/blip.py, create_vit: 768 / 12 and 1024 / 16)."""


class Blip(NamedTuple):
    """The networks of ImageReward.

    Args:
        vision: BLIP's vision encoder.
        text: BLIP's text encoder, which attends to the picture.
        head: Head on the first token of the text encoder.
        tokens: Function from a text to its tokens and their mask.
    """

    vision: Any
    text: Any
    head: nn.Module
    tokens: Callable[[str], tuple[Tensor, Tensor]]


class ImageReward(Pretrained):
    """Human preference: how well a picture matches its prompt and how good it looks.

        r(x, c) = (h(T(c, V(x))[0]) - mean) / std,  mean = 0.1672, std = 1.0333

    where V is BLIP's vision encoder (ViT-L/16), T its text encoder, whose layers attend to the picture's tokens, [0]
    the first token, and h consists of five linear maps. Xu et al. 2023, "ImageReward: Learning and Evaluating Human
    Preferences for Text-to-Image Generation", arXiv 2304.05977. Follows the authors' ImageReward.py (version 1.0), with
    the weights of their BLIP converted to transformers' format. Prompts are truncated to 35 tokens.

    Cost: one ViT-L/16 pass and one BERT-base pass per picture.

    Args:
        checkpoint: Hub repository (``owner/name``) or folder with ImageReward.pt and med_config.json; None means the
            published one.
        base: Repository or folder of the tokenizer; None means the published one, of BERT.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
    """

    name = "image-reward"
    bounds = (-math.inf, math.inf)
    description = "human preference, by match with the prompt and by looks; standardized; about -2.3 to 2"
    differentiable = True
    published = "THUDM/ImageReward"
    given_by = "checkpoint=... and base=..."
    prepare: ClassVar[Preprocess] = Preprocess(224)
    batch_size = 16
    card = Card(
        range="about -2.3 to 2; mean 0 and standard deviation 1 on its training data",
        download="1.8 GB",
        memory="1.8 GB",
        licence="Apache-2.0",
        reference="Xu et al. 2023, arXiv 2304.05977",
    )

    def __init__(
        self,
        checkpoint: str | None = None,
        base: str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        super().__init__(checkpoint, device, batch_size)
        self.base = base or BERT

    @property
    def _settings(self) -> tuple[str, ...]:
        return () if self.base in (BERT, self.checkpoint) else (f"base={self.base}",)

    def _networks(self) -> Blip:
        from transformers import AutoTokenizer, BlipTextModel, BlipVisionModel

        weights = self.tensors(self.file("ImageReward.pt"))
        config = self.loaded(_read_json, self.file("med_config.json"))
        vision, text = _vision(_under(weights, "blip.visual_encoder.")), _under(weights, "blip.text_encoder.")
        text.pop("embeddings.position_ids", None)
        vision_config = _vision_config(vision)
        text_config = _text_config(config, vision_config.hidden_size)
        head = Stack(text_config.hidden_size)
        self.loaded(head.load_state_dict, _under(weights, "mlp."))
        return Blip(
            self.built(BlipVisionModel.from_pretrained, vision_config, vision),
            self.built(partial(BlipTextModel.from_pretrained, add_pooling_layer=False), text_config, text),
            self.ready(head),
            cached(partial(_tokenized, self.loaded(AutoTokenizer.from_pretrained, self.base), self.device)),
        )

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        vision, text, head, tokens = self.networks
        patches = vision(pixel_values=self.prepare(pixels).to(self.device, torch.float32)).last_hidden_state
        ids, mask = (torch.stack(of_prompts) for of_prompts in zip(*map(tokens, prompts), strict=True))
        states = text(input_ids=ids, attention_mask=mask, encoder_hidden_states=patches).last_hidden_state
        scores: Tensor = (head(states[:, 0])[:, 0] - MEAN) / STD
        return scores


def _tokenized(tokenizer: Any, device: torch.device, prompt: str) -> tuple[Tensor, Tensor]:
    batch = tokenizer(prompt, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt").to(device)
    return batch["input_ids"][0], batch["attention_mask"][0]


_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^blocks\.", "encoder.layers."),
    (r"^norm\.", "post_layernorm."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
)


def _vision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of BLIP's vision encoder to those of ``BlipVisionModel``; the text encoder's names match."""
    renamed = {}
    for name, weight in weights.items():
        for old, new in _NAMES:
            name = re.sub(old, new, name)
        renamed[name] = weight
    return renamed


def _under(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(read_text(path))
    return content


def _vision_config(weights: Mapping[str, Tensor]) -> Any:
    """Infer the configuration from the weights, since the published files do not contain it."""
    from transformers import BlipVisionConfig

    width, _, patch, _ = weights["embeddings.patch_embedding.weight"].shape
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(weights["encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=sum(name.endswith(".mlp.fc1.weight") for name in weights),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=math.isqrt(weights["embeddings.position_embedding"].shape[1] - 1) * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,  # models/BLIP/vit.py, VisionTransformer; 1e-5 is the default of transformers
    )


def _text_config(config: Mapping[str, Any], vision_width: int) -> Any:
    """The configuration of BERT in med_config.json, with cross-attention to the picture in every layer."""
    from transformers import BlipTextConfig

    same = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "hidden_act",
        "layer_norm_eps",
        "pad_token_id",
    )
    return BlipTextConfig(**{name: config[name] for name in same}, encoder_hidden_size=vision_width, is_decoder=True)
