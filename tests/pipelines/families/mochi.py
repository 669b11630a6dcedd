"""Mochi 1, whose times run from noise to data."""

from __future__ import annotations

from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel
from torch import nn

from families.family import Family, Tiny
from families.parts import WIDTH, euler, seeded, t5, tokenizer


def text_to_video() -> Tiny:
    seeded()
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,  # the text ends before the last, so that there are two kinds
        pooled_projection_dim=16,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        max_sequence_length=16,
    ).eval()
    nn.init.normal_(transformer.pos_frequencies)
    seeded(3)
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    ).eval()
    pipeline = MochiPipeline(
        scheduler=euler(invert_sigmas=True),
        vae=vae,
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=transformer,
    )
    arguments = {
        "height": 16,
        "width": 16,
        "num_frames": 7,
        "max_sequence_length": 16,
        "negative_prompt": "fog",
        "guidance_scale": 4.5,
    }
    return Tiny(pipeline, arguments)


FAMILIES: dict[str, Family] = {"MochiPipeline": text_to_video}
