"""Nucleus-Image, of experts that each pick their tokens."""

from __future__ import annotations

from diffusers import NucleusMoEImagePipeline, NucleusMoEImageTransformer2DModel
from torch import nn

from families.family import Family, Tiny
from families.parts import WIDTH, euler, seeded
from families.qwen import TextProcessor, chatting, qwen3_vl
from families.qwen_image import autoencoder


def image() -> Tiny:
    seeded()
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        dense_moe_strategy="all_moe",
        num_experts=2,
        moe_intermediate_dim=32,
        capacity_factors=1.0,
    ).eval()
    for block in transformer.transformer_blocks:  # whose weights are whatever was in memory
        nn.init.normal_(block.img_mlp.experts.gate_up_proj, std=0.2)
        nn.init.normal_(block.img_mlp.experts.down_proj, std=0.2)
    words = chatting()
    pipeline = NucleusMoEImagePipeline(
        transformer=transformer,
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(),
        text_encoder=qwen3_vl(),
        processor=TextProcessor(words, words.chat_template),
    )
    guided = {"negative_prompt": "fog", "guidance_scale": 4.0}
    return Tiny(pipeline, {"height": 16, "width": 16, "return_index": -1, **guided})


FAMILIES: dict[str, Family] = {"NucleusMoEImagePipeline": image}
