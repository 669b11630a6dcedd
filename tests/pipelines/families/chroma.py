"""Chroma."""

from __future__ import annotations

import warnings

from diffusers import ChromaPipeline, ChromaTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, seeded, t5, tokenizer


def chroma() -> Tiny:
    seeded()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of the positions that it is made with
        transformer = ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=16,
            approximator_hidden_dim=32,
            approximator_layers=1,
        ).eval()
    pipeline = ChromaPipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(4),
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=transformer,
    )
    size = {"height": 16, "width": 16, "max_sequence_length": 16}
    return Tiny(pipeline, {**size, "negative_prompt": "fog", "guidance_scale": 3.0})


FAMILIES: dict[str, Family] = {"ChromaPipeline": chroma}
