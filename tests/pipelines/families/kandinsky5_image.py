"""Kandinsky 5 for pictures."""

from __future__ import annotations

from diffusers import Kandinsky5T2IPipeline, Kandinsky5Transformer3DModel
from torch import nn

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, clip, euler, opened, seeded, tokenizer
from families.qwen import qwen2_5_vl


def image() -> Tiny:
    seeded()
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=16,
        out_visual_dim=4,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 4, 8),
    )
    transformer = opened(transformer).eval()
    for block in transformer.visual_transformer_blocks:
        # Positions are turned in bfloat16; at logits this small its rounding does not drown finite differences.
        nn.init.constant_(block.self_attention.query_norm.weight, 0.1)
    pipeline = Kandinsky5T2IPipeline(
        transformer=transformer,
        vae=autoencoder(4),
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        text_encoder_2=clip(),
        tokenizer_2=tokenizer(),
        scheduler=euler(shift=3.0),
    )
    pipeline.prompt_template, pipeline.prompt_template_encode_start_idx = "{}", 0
    pipeline.resolutions = [(32, 32)]
    guided = {"negative_prompt": "fog", "guidance_scale": 3.5}
    return Tiny(pipeline, {"height": 32, "width": 32, **guided})


FAMILIES: dict[str, Family] = {"Kandinsky5T2IPipeline": image}
