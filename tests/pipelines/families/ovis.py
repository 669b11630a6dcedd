"""Ovis-Image."""

from __future__ import annotations

from diffusers import OvisImagePipeline, OvisImageTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, seeded
from families.qwen import chatting, qwen3


def image() -> Tiny:
    seeded()
    transformer = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    pipeline = OvisImagePipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(4),
        text_encoder=qwen3(),
        tokenizer=chatting(),
        transformer=transformer,
    )
    pipeline.system_prompt, pipeline.user_prompt_begin_id = "", 0
    guided = {"negative_prompt": "fog", "guidance_scale": 5.0}
    return Tiny(pipeline, {"height": 16, "width": 16, "max_sequence_length": 16, **guided})


FAMILIES: dict[str, Family] = {"OvisImagePipeline": image}
