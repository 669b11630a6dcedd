"""HunyuanImage 2.1, guided by a component of its own, and distilled as a mean flow."""

from __future__ import annotations

from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLHunyuanImage,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)
from torch import nn

from families.family import Family, Tiny
from families.parts import WIDTH, euler, seeded, t5, tokenizer
from families.qwen import qwen2_5_vl

SIZE = {"height": 8, "width": 8}


def _transformer(distilled: bool) -> HunyuanImageTransformer2DModel:
    seeded()
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        mlp_ratio=1.0,
        guidance_embeds=distilled,
        use_meanflow=distilled,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(8, 8),
    )
    glyphs = transformer.context_embedder_2  # 2048 wide, whatever the settings
    glyphs.linear_1, glyphs.linear_2, glyphs.linear_3 = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
    return transformer.eval()


def _pipeline(distilled: bool) -> HunyuanImagePipeline:
    seeded(3)
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=32,
        scaling_factor=0.75,
    ).eval()
    pipeline = HunyuanImagePipeline(
        scheduler=euler(shift=5.0),
        vae=vae,
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
        transformer=_transformer(distilled),
        guider=None if distilled else AdaptiveProjectedMixGuidance(),
    )
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "{}", 0
    pipeline.tokenizer_max_length = pipeline.tokenizer_2_max_length = 16
    return pipeline


def guided() -> Tiny:
    return Tiny(_pipeline(distilled=False), {**SIZE, "negative_prompt": "fog"})


def mean_flow() -> Tiny:
    return Tiny(_pipeline(distilled=True), SIZE)


FAMILIES: dict[str, Family] = {
    "HunyuanImagePipeline": guided,
}
