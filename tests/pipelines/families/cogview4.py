"""CogView4, whose network is told the time before it is shifted."""

from __future__ import annotations

from diffusers import CogView4Pipeline, CogView4Transformer2DModel
from transformers import GlmConfig, GlmModel

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, autoencoder, euler, in_eval_mode, seeded, tokenizer


def cogview4() -> Tiny:
    seeded()
    transformer = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        sample_size=8,
    ).eval()
    seeded(2)
    pipeline = CogView4Pipeline(
        tokenizer=tokenizer(),
        text_encoder=in_eval_mode(GlmModel(GlmConfig(**LANGUAGE_MODEL))),
        vae=autoencoder(4),
        transformer=transformer,
        scheduler=euler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )
    size = {"height": 16, "width": 16, "max_sequence_length": 16}
    return Tiny(pipeline, {**size, "negative_prompt": "fog", "guidance_scale": 5.0})


FAMILIES: dict[str, Family] = {"CogView4Pipeline": cogview4}
