"""FLUX.1."""

from __future__ import annotations

from diffusers import FluxPipeline, FluxTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, clip, euler, seeded, t5, tokenizer


def _components(guidance_embeds: bool) -> dict[str, object]:
    seeded()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
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


FAMILIES: dict[str, Family] = {
    "FluxPipeline, guidance embedded": distilled,
    "FluxPipeline, true guidance": true_guidance,
}
