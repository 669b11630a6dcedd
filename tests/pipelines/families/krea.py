"""Krea 2."""

from __future__ import annotations

from diffusers import Krea2Pipeline, Krea2Transformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, euler, opened, seeded, tokenizer
from families.qwen import qwen3_vl
from families.qwen_image import autoencoder

LAYERS = (1, 2)
"""Of the language model, from whose states the text is made."""


def second() -> Tiny:
    seeded()
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=len(LAYERS),
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 4, 8),
    )
    pipeline = Krea2Pipeline(
        scheduler=euler(use_dynamic_shifting=True, max_image_seq_len=6400),
        vae=autoencoder(),
        text_encoder=qwen3_vl().model,
        tokenizer=tokenizer(),
        transformer=opened(transformer).eval(),
        text_encoder_select_layers=LAYERS,
    )
    pipeline.prompt_template_encode_prefix, pipeline.prompt_template_encode_start_idx = "", 0
    pipeline.prompt_template_encode_suffix, pipeline.prompt_template_encode_num_suffix_tokens = "\n", 2
    guided = {"negative_prompt": "fog", "guidance_scale": 4.5}
    return Tiny(pipeline, {"height": 16, "width": 16, "max_sequence_length": 16, **guided})


FAMILIES: dict[str, Family] = {"Krea2Pipeline": second}
