"""Lumina-Next and Lumina-Image 2.0, whose networks point from noise to data."""

from __future__ import annotations

from diffusers import (
    AutoencoderKL,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
)
from torch import nn
from transformers import Gemma2Config, Gemma2Model, GemmaConfig, GemmaModel

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, autoencoder, euler, in_eval_mode, seeded, tokenizer

GUIDED = {"height": 32, "width": 32, "negative_prompt": "fog", "guidance_scale": 4.0}


def _autoencoder() -> AutoencoderKL:
    """Eight times down, as both pipelines take for granted."""
    return autoencoder(
        4,
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def next_generation() -> Tiny:
    seeded()
    transformer = LuminaNextDiT2DModel(
        sample_size=4,
        hidden_size=32,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=WIDTH,
    ).eval()
    for layer in transformer.layers:
        nn.init.normal_(layer.gate)  # of the prompt; closed at first
    seeded(2)
    pipeline = LuminaPipeline(
        transformer=transformer,
        scheduler=euler(),
        vae=_autoencoder(),
        text_encoder=in_eval_mode(GemmaModel(GemmaConfig(**LANGUAGE_MODEL))),
        tokenizer=tokenizer(),
    )
    return Tiny(pipeline, {**GUIDED, "clean_caption": False})


def image() -> Tiny:
    seeded()
    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=32,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(64, 8, 8),
        cap_feat_dim=WIDTH,
    ).eval()
    seeded(2)
    pipeline = Lumina2Pipeline(
        transformer=transformer,
        scheduler=euler(shift=6.0),
        vae=_autoencoder(),
        text_encoder=in_eval_mode(Gemma2Model(Gemma2Config(**LANGUAGE_MODEL))),
        tokenizer=tokenizer(),
    )
    return Tiny(pipeline, {**GUIDED, "max_sequence_length": 32, "system_prompt": ""})


FAMILIES: dict[str, Family] = {
    "LuminaPipeline": next_generation,
    "Lumina2Pipeline": image,
}
