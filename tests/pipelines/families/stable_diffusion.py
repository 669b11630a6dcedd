"""Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, clip, ddim, mask, picture, tokenizer, unet

SIZE = {"height": 16, "width": 16}
GUIDED = {"negative_prompt": ["fog"], "guidance_scale": 3.0}  # a list, as prompts are
LARGE_GUIDED = {**GUIDED, "negative_prompt": "fog"}
FROM_PICTURE = {"image": picture(), "strength": 0.6}
INPAINTING = {**SIZE, **FROM_PICTURE, "mask_image": mask()}
DECODER = {"use_quant_conv": True, "use_post_quant_conv": True, "shift_factor": None}


def _components(prediction_type: str = "epsilon", **settings: object) -> dict[str, object]:
    return {
        "vae": autoencoder(4, **DECODER),
        "text_encoder": clip(),
        "tokenizer": tokenizer(16),
        "unet": unet(**settings),
        "scheduler": ddim(prediction_type=prediction_type),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def epsilon() -> Tiny:
    return Tiny(StableDiffusionPipeline(**_components()), {**SIZE, **GUIDED})


def velocity() -> Tiny:
    components = _components("v_prediction", use_linear_projection=True)
    return Tiny(StableDiffusionPipeline(**components), {**SIZE, **GUIDED})


def from_picture() -> Tiny:
    return Tiny(StableDiffusionImg2ImgPipeline(**_components()), {**GUIDED, **FROM_PICTURE})


def inpainting() -> Tiny:
    return Tiny(StableDiffusionInpaintPipeline(**_components()), {**GUIDED, **INPAINTING})


def told_mask() -> Tiny:
    components = _components(in_channels=4 + 1 + 4)
    return Tiny(StableDiffusionInpaintPipeline(**components), {**GUIDED, **INPAINTING})


def _large(**settings: object) -> dict[str, object]:
    network = unet(
        use_linear_projection=True,
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        transformer_layers_per_block=(1, 2),
        **settings,
    )
    return {
        "vae": autoencoder(4, **DECODER),
        "text_encoder": clip(),
        "text_encoder_2": clip(projected=True),
        "tokenizer": tokenizer(16),
        "tokenizer_2": tokenizer(16),
        "unet": network,
        "scheduler": ddim(),
        "add_watermarker": False,
    }


def large() -> Tiny:
    return Tiny(StableDiffusionXLPipeline(**_large()), {**SIZE, **LARGE_GUIDED})


def large_from_picture() -> Tiny:
    return Tiny(StableDiffusionXLImg2ImgPipeline(**_large()), {**LARGE_GUIDED, **FROM_PICTURE})


def large_inpainting() -> Tiny:
    return Tiny(StableDiffusionXLInpaintPipeline(**_large()), {**LARGE_GUIDED, **INPAINTING})


def large_told_mask() -> Tiny:
    components = _large(in_channels=4 + 1 + 4)
    return Tiny(StableDiffusionXLInpaintPipeline(**components), {**LARGE_GUIDED, **INPAINTING})


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline, epsilon": epsilon,
    "StableDiffusionPipeline, v-prediction": velocity,
    "StableDiffusionImg2ImgPipeline": from_picture,
    "StableDiffusionInpaintPipeline": inpainting,
    "StableDiffusionInpaintPipeline, told the mask": told_mask,
    "StableDiffusionXLPipeline": large,
    "StableDiffusionXLImg2ImgPipeline": large_from_picture,
    "StableDiffusionXLInpaintPipeline": large_inpainting,
    "StableDiffusionXLInpaintPipeline, told the mask": large_told_mask,
}
