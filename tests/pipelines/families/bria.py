"""Bria 3 and FIBO."""

from __future__ import annotations

from diffusers import BriaFiboPipeline, BriaFiboTransformer2DModel, BriaPipeline, BriaTransformer2DModel
from transformers import SmolLM3Config, SmolLM3ForCausalLM

from families import wan
from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, autoencoder, euler, in_eval_mode, seeded, t5, tokenizer

GUIDED = {"negative_prompt": "fog", "guidance_scale": 5.0}


def third() -> Tiny:
    seeded()
    transformer = BriaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    ).eval()
    pipeline = BriaPipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(4),
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=transformer,
    )
    return Tiny(pipeline, {"height": 16, "width": 16, "max_sequence_length": 16, **GUIDED})


def fibo() -> Tiny:
    seeded()
    transformer = BriaFiboTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        axes_dims_rope=[4, 4, 8],
        text_encoder_dim=WIDTH,
    ).eval()
    seeded(2)
    config = SmolLM3Config(**LANGUAGE_MODEL)  # type: ignore[misc]  # takes head_dim, which it does not declare
    text_encoder = in_eval_mode(SmolLM3ForCausalLM(config))
    pipeline = BriaFiboPipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=wan.autoencoder(),
        text_encoder=text_encoder,
        tokenizer=tokenizer(),
        transformer=transformer,
    )
    return Tiny(pipeline, {"height": 64, "width": 64, **GUIDED})


FAMILIES: dict[str, Family] = {
    "BriaPipeline": third,
    "BriaFiboPipeline": fibo,
}
