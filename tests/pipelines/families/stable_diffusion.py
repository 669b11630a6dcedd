"""Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, clip, ddim, tokenizer, unet

SIZE = {"height": 16, "width": 16, "guidance_scale": 3.0}
DECODER = {"use_quant_conv": True, "use_post_quant_conv": True, "shift_factor": None}


def _first(prediction_type: str, **settings: object) -> Tiny:
    pipeline = StableDiffusionPipeline(
        vae=autoencoder(4, **DECODER),
        text_encoder=clip(),
        tokenizer=tokenizer(16),
        unet=unet(**settings),
        scheduler=ddim(prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Tiny(pipeline, {**SIZE, "negative_prompt": ["fog"]})  # a list, as prompts are


def epsilon() -> Tiny:
    return _first("epsilon")


def velocity() -> Tiny:
    return _first("v_prediction", use_linear_projection=True)


def large() -> Tiny:
    network = unet(
        use_linear_projection=True,
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        transformer_layers_per_block=(1, 2),
    )
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder(4, **DECODER),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True),
        tokenizer=tokenizer(16),
        tokenizer_2=tokenizer(16),
        unet=network,
        scheduler=ddim(),
        add_watermarker=False,
    )
    return Tiny(pipeline, {**SIZE, "negative_prompt": "fog"})


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline, epsilon": epsilon,
    "StableDiffusionPipeline, v-prediction": velocity,
    "StableDiffusionXLPipeline": large,
}
