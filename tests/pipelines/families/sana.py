"""Sana, alone and with perturbed attention."""

from __future__ import annotations

from diffusers import AutoencoderDC, SanaPAGPipeline, SanaPipeline, SanaTransformer2DModel
from transformers import Gemma2Config, Gemma2Model

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, euler, in_eval_mode, seeded, tokenizer

SIZE = {
    "height": 32,
    "width": 32,
    "max_sequence_length": 16,
    "complex_human_instruction": None,
    "use_resolution_binning": False,
}
GUIDED = {**SIZE, "negative_prompt": "fog", "guidance_scale": 4.5}


def _autoencoder() -> AutoencoderDC:
    """Four times down, the last block with linear attention."""
    seeded(3)
    sides = {
        "block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
        "block_out_channels": (4, 4, 16),
        "layers_per_block": (1, 1, 1),
        "qkv_multiscales": ((), (), (5,)),
    }
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()}
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=16,
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        scaling_factor=0.41407,
        **both,
    ).eval()


def transformer(**settings: object) -> SanaTransformer2DModel:
    seeded()
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        mlp_ratio=1.0,
        **settings,
    ).eval()


def components() -> dict[str, object]:
    seeded(2)
    text_encoder = in_eval_mode(Gemma2Model(Gemma2Config(**LANGUAGE_MODEL)))
    return {
        "tokenizer": tokenizer(),
        "text_encoder": text_encoder,
        "vae": _autoencoder(),
        "transformer": transformer(),
        "scheduler": euler(shift=3.0),
    }


def plain() -> Tiny:
    return Tiny(SanaPipeline(**components()), GUIDED)


def perturbed() -> Tiny:
    pipeline = SanaPAGPipeline(**components(), pag_applied_layers="transformer_blocks.0")
    return Tiny(pipeline, {**GUIDED, "pag_scale": 2.0})


FAMILIES: dict[str, Family] = {
    "SanaPipeline": plain,
    "SanaPAGPipeline": perturbed,
}
