"""Stable Diffusion 3 and 3.5, with and without the largest of its text encoders, and with perturbed attention."""

from __future__ import annotations

from diffusers import (
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3PAGPipeline,
    StableDiffusion3Pipeline,
)

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, clip, euler, mask, picture, seeded, t5, tokenizer

GUIDED = {
    "height": 16,
    "width": 16,
    "max_sequence_length": 16,
    "negative_prompt": "fog",
    "guidance_scale": 4.0,
}


def _components(channels: int = 4) -> dict[str, object]:
    seeded()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=channels,
        num_layers=2,  # the text ends before the last, so that there are two kinds
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        out_channels=channels,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    ).eval()
    return {
        "scheduler": euler(shift=3.0),
        "transformer": transformer,
        "vae": autoencoder(channels),
        "text_encoder": clip(projected=True),
        "text_encoder_2": clip(projected=True),
        "text_encoder_3": t5(2 * WIDTH),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "tokenizer_3": tokenizer(),
    }


def whole() -> Tiny:
    return Tiny(StableDiffusion3Pipeline(**_components()), GUIDED)


def without_t5() -> Tiny:
    components = {**_components(), "text_encoder_3": None, "tokenizer_3": None}
    return Tiny(StableDiffusion3Pipeline(**components), GUIDED)


def perturbed() -> Tiny:
    pipeline = StableDiffusion3PAGPipeline(**_components(), pag_applied_layers="blocks.1")
    return Tiny(pipeline, {**GUIDED, "pag_scale": 2.0})


def from_picture() -> Tiny:
    given = {**GUIDED, "image": picture(), "strength": 0.6}
    return Tiny(StableDiffusion3Img2ImgPipeline(**_components()), given)


def inpainting() -> Tiny:
    """It refuses any but 16 channels."""
    given = {**GUIDED, "image": picture(), "mask_image": mask(), "strength": 0.6}
    return Tiny(StableDiffusion3InpaintPipeline(**_components(16)), given)


FAMILIES: dict[str, Family] = {
    "StableDiffusion3Pipeline": whole,
    "StableDiffusion3Pipeline, without T5": without_t5,
    "StableDiffusion3PAGPipeline": perturbed,
    "StableDiffusion3Img2ImgPipeline": from_picture,
    "StableDiffusion3InpaintPipeline": inpainting,
}
