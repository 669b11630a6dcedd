"""Chroma."""

from __future__ import annotations

import warnings

from diffusers import (
    ChromaImg2ImgPipeline,
    ChromaInpaintPipeline,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
)

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, mask, picture, seeded, t5, tokenizer


def _tiny(kind: type[DiffusionPipeline], **given: object) -> Tiny:
    seeded()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of the positions that it is made with
        transformer = ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=16,
            approximator_hidden_dim=32,
            approximator_layers=1,
        ).eval()
    transformer.register_to_config(guidance_embeds=False)  # a setting of FLUX that one of the pipelines looks for
    pipeline = kind(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(4),
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=transformer,
    )
    size = {"height": 16, "width": 16, "max_sequence_length": 16}
    return Tiny(pipeline, {**size, "negative_prompt": "fog", "guidance_scale": 3.0, **given})


def text_to_image() -> Tiny:
    return _tiny(ChromaPipeline)


def from_picture() -> Tiny:
    return _tiny(ChromaImg2ImgPipeline, image=picture(), strength=0.6)


def inpainting() -> Tiny:
    return _tiny(ChromaInpaintPipeline, image=picture(), mask_image=mask(), strength=0.6)


FAMILIES: dict[str, Family] = {
    "ChromaPipeline": text_to_image,
    "ChromaImg2ImgPipeline": from_picture,
    "ChromaInpaintPipeline": inpainting,
}
