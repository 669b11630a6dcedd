"""LongCat-Image."""

from __future__ import annotations

from diffusers import LongCatImagePipeline, LongCatImageTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, seeded, tokenizer
from families.qwen import qwen2_5_vl


def image() -> Tiny:
    seeded()
    transformer = LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    ).eval()
    pipeline = LongCatImagePipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(16),
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        text_processor=None,
        transformer=transformer,
    )
    pipeline.prompt_template_encode_prefix, pipeline.prompt_template_encode_suffix = "", "\n"
    pipeline.tokenizer_max_length = 16
    guided = {"negative_prompt": "fog", "guidance_scale": 4.5}
    return Tiny(pipeline, {"height": 16, "width": 16, "enable_prompt_rewrite": False, **guided})


FAMILIES: dict[str, Family] = {"LongCatImagePipeline": image}
