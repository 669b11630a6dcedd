"""Kandinsky 5 for films, with and without channels that tell its network which frames are given."""

from __future__ import annotations

from diffusers import Kandinsky5T2VPipeline, Kandinsky5Transformer3DModel
from torch import nn

from families.family import Family, Tiny
from families.hunyuan_video import autoencoder
from families.parts import WIDTH, clip, euler, opened, seeded, tokenizer
from families.qwen import qwen2_5_vl

GUIDED = {
    "height": 16,
    "width": 16,
    "num_frames": 5,
    "max_sequence_length": 16,
    "negative_prompt": "fog",
    "guidance_scale": 3.0,
}


def _tiny(visual_cond: bool) -> Tiny:
    seeded()
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=WIDTH,
        time_dim=16,
        out_visual_dim=4,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 2, 2),
        visual_cond=visual_cond,
    )
    transformer = opened(transformer).eval()
    for block in transformer.visual_transformer_blocks:
        # Positions are turned in bfloat16; at logits this small its rounding does not drown finite differences.
        nn.init.constant_(block.self_attention.query_norm.weight, 0.1)
    pipeline = Kandinsky5T2VPipeline(
        transformer=transformer,
        vae=autoencoder(),
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        text_encoder_2=clip(),
        tokenizer_2=tokenizer(),
        scheduler=euler(shift=5.0),
    )
    pipeline.prompt_template, pipeline.prompt_template_encode_start_idx = "{}", 0
    return Tiny(pipeline, GUIDED)


def plain() -> Tiny:
    return _tiny(visual_cond=False)


def told_frames() -> Tiny:
    return _tiny(visual_cond=True)


FAMILIES: dict[str, Family] = {
    "Kandinsky5T2VPipeline": plain,
    "Kandinsky5T2VPipeline, told frames": told_frames,
}
