"""FLUX.1."""

from __future__ import annotations

from diffusers import (
    FluxControlPipeline,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, clip, euler, mask, picture, seeded, t5, tokenizer


def _components(guidance_embeds: bool, **settings: int) -> dict[str, object]:
    seeded()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=settings.pop("in_channels", 16),
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
        **settings,
    ).eval()
    return {
        "scheduler": euler(use_dynamic_shifting=True),
        "transformer": transformer,
        "vae": autoencoder(4),
        "text_encoder": clip(),
        "text_encoder_2": t5(),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
    }


SIZE = {"height": 16, "width": 16, "max_sequence_length": 16}


def distilled() -> Tiny:
    return Tiny(FluxPipeline(**_components(True)), SIZE)


def true_guidance() -> Tiny:
    guided = {"negative_prompt": "fog", "true_cfg_scale": 3.0}
    return Tiny(FluxPipeline(**_components(False)), {**SIZE, **guided})


def from_picture() -> Tiny:
    return Tiny(FluxImg2ImgPipeline(**_components(True)), {**SIZE, "image": picture(), "strength": 0.6})


def inpainting() -> Tiny:
    given = {**SIZE, "image": picture(), "mask_image": mask(), "strength": 0.6}
    return Tiny(FluxInpaintPipeline(**_components(True)), given)


def inpainting_from_noise() -> Tiny:
    given = {**SIZE, "image": picture(), "mask_image": mask(), "strength": 1.0}
    return Tiny(FluxInpaintPipeline(**_components(True)), given)


def fill() -> Tiny:
    """Told the picture and the mask, 4 x 4 pixels of it a latent of four, beside the latents."""
    components = _components(True, in_channels=16 + 16 + 16, out_channels=16)
    return Tiny(FluxFillPipeline(**components), {**SIZE, "image": picture(), "mask_image": mask()})


def kontext() -> Tiny:
    given = {**SIZE, "image": picture(), "max_area": 16 * 16, "_auto_resize": False}
    return Tiny(FluxKontextPipeline(**_components(True)), given)


def control() -> Tiny:
    components = _components(True, in_channels=32, out_channels=16)
    return Tiny(FluxControlPipeline(**components), {**SIZE, "control_image": picture()})


FAMILIES: dict[str, Family] = {
    "FluxPipeline, guidance embedded": distilled,
    "FluxPipeline, true guidance": true_guidance,
    "FluxImg2ImgPipeline": from_picture,
    "FluxInpaintPipeline": inpainting,
    "FluxInpaintPipeline, from noise": inpainting_from_noise,
    "FluxFillPipeline": fill,
    "FluxKontextPipeline": kontext,
    "FluxControlPipeline": control,
}
