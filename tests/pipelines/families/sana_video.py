"""SANA-Video."""

from __future__ import annotations

from diffusers import SanaImageToVideoPipeline, SanaVideoPipeline, SanaVideoTransformer3DModel
from transformers import Gemma2Config, Gemma2Model

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, euler, in_eval_mode, picture, seeded, tokenizer
from families.wan import autoencoder

GUIDED = {
    "height": 32,
    "width": 32,
    "frames": 5,
    "max_sequence_length": 16,
    "complex_human_instruction": None,
    "use_resolution_binning": False,
    "negative_prompt": "fog",
    "guidance_scale": 6.0,
}


def _components() -> dict[str, object]:
    seeded()
    transformer = SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        mlp_ratio=1.0,
        rope_max_seq_len=32,
    ).eval()
    seeded(2)
    return {
        "tokenizer": tokenizer(),
        "text_encoder": in_eval_mode(Gemma2Model(Gemma2Config(**LANGUAGE_MODEL))),
        "vae": autoencoder(),
        "transformer": transformer,
        "scheduler": euler(shift=8.0),
    }


def text_to_video() -> Tiny:
    return Tiny(SanaVideoPipeline(**_components()), GUIDED)


def from_picture() -> Tiny:
    return Tiny(SanaImageToVideoPipeline(**_components()), {**GUIDED, "image": picture(32, 32)})


FAMILIES: dict[str, Family] = {
    "SanaVideoPipeline": text_to_video,
    "SanaImageToVideoPipeline": from_picture,
}
