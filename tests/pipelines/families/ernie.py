"""ERNIE-Image."""

from __future__ import annotations

from diffusers import AutoencoderKLFlux2, ErnieImagePipeline, ErnieImageTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, euler, opened, seeded, tokenizer
from families.qwen import qwen3


def image() -> Tiny:
    seeded()
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=WIDTH,
        rope_axes_dim=(4, 4, 8),
    )
    transformer = opened(transformer).eval()
    seeded(3)
    vae = AutoencoderKLFlux2(
        sample_size=32,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
    ).eval()
    pipeline = ErnieImagePipeline(
        transformer=transformer, vae=vae, text_encoder=qwen3(), tokenizer=tokenizer(), scheduler=euler(shift=3.0)
    )
    guided = {"negative_prompt": "fog", "guidance_scale": 4.0}
    return Tiny(pipeline, {"height": 16, "width": 16, **guided})


FAMILIES: dict[str, Family] = {"ErnieImagePipeline": image}
