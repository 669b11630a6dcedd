"""AuraFlow."""

from __future__ import annotations

import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel
from transformers import UMT5Config, UMT5EncoderModel

from families.family import Family, Tiny
from families.parts import VOCABULARY, WIDTH, autoencoder, euler, in_eval_mode, seeded, tokenizer


def aura_flow() -> Tiny:
    seeded()
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=16,
    ).eval()
    with torch.no_grad():
        transformer.time_step_proj.linear_2.weight.mul_(10)  # the gates are nearly closed at first
    seeded(2)
    config = UMT5Config(vocab_size=len(VOCABULARY), d_model=WIDTH, d_ff=WIDTH, d_kv=8, num_layers=1, num_heads=4)
    pipeline = AuraFlowPipeline(
        tokenizer=tokenizer(),
        text_encoder=in_eval_mode(UMT5EncoderModel(config)),
        vae=autoencoder(4),
        transformer=transformer,
        scheduler=euler(shift=1.73),
    )
    size = {"height": 16, "width": 16, "max_sequence_length": 16}
    return Tiny(pipeline, {**size, "negative_prompt": "fog", "guidance_scale": 3.5})


FAMILIES: dict[str, Family] = {"AuraFlowPipeline": aura_flow}
