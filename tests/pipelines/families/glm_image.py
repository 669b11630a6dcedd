"""GLM-Image, drawn over tokens that a language model foretells."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import GlmImagePipeline, GlmImageTransformer2DModel
from torch import nn
from transformers import GlmImageConfig, GlmImageForConditionalGeneration
from transformers.tokenization_utils_base import BatchEncoding

from families.family import Family, Tiny
from families.parts import (
    LANGUAGE_MODEL,
    VOCABULARY,
    WIDTH,
    autoencoder,
    euler,
    in_eval_mode,
    opened,
    seeded,
    t5,
    tokenizer,
)
from families.qwen import EYES, TextProcessor


class Asking(TextProcessor):
    """Asks for pictures of one token each, after a preview of one."""

    def apply_chat_template(  # type: ignore[override]  # which is declared to return text, even where it tokenizes
        self, conversations: list[list[dict[str, Any]]], padding: bool, **_: object
    ) -> BatchEncoding:
        texts = [turns[-1]["content"][-1]["text"] for turns in conversations]
        asked: BatchEncoding = self.tokenizer(texts, padding=padding, return_tensors="pt")
        asked["image_grid_thw"] = torch.ones(2 * len(texts), 3, dtype=torch.long)
        asked["images_per_sample"] = torch.full((len(texts),), 2)
        return asked


def _foretelling() -> nn.Module:
    seeded(2)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    config = GlmImageConfig(
        text_config={**LANGUAGE_MODEL, "vision_vocab_size": len(VOCABULARY), "rope_parameters": rope},
        vision_config={**EYES, "image_size": 8},
        vq_config={"embed_dim": WIDTH, "num_embeddings": len(VOCABULARY), "latent_channels": WIDTH},
    )
    model = in_eval_mode(GlmImageForConditionalGeneration(config))
    model.generation_config.top_k = 1  # it is told to sample; so it says the same every time
    return model


def image() -> Tiny:
    seeded()
    transformer = GlmImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=8,
        prior_vq_quantizer_codebook_size=len(VOCABULARY),
    )
    vae = autoencoder(  # eight times down, as many as the tokens stand for
        4,
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.0, 2.0],
    )
    pipeline = GlmImagePipeline(
        tokenizer=tokenizer(),
        processor=Asking(tokenizer()),
        text_encoder=t5(),
        vision_language_encoder=_foretelling(),
        vae=vae,
        transformer=opened(transformer).eval(),
        scheduler=euler(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"),
    )
    return Tiny(pipeline, {"height": 32, "width": 32, "guidance_scale": 1.5})


FAMILIES: dict[str, Family] = {"GlmImagePipeline": image}
