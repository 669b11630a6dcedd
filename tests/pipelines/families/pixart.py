"""PixArt-Sigma."""

from __future__ import annotations

from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, ddim, seeded, t5, tokenizer


def text_to_image() -> Tiny:
    seeded()
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        cross_attention_dim=24,
        caption_channels=WIDTH,
    ).eval()
    pipeline = PixArtSigmaPipeline(
        tokenizer=tokenizer(),
        text_encoder=t5(),
        vae=autoencoder(4, shift_factor=None),
        transformer=transformer,
        scheduler=ddim(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
    )
    arguments = {
        "height": 16,
        "width": 16,
        "max_sequence_length": 16,
        "clean_caption": False,
        "use_resolution_binning": False,
        "negative_prompt": "fog",
        "guidance_scale": 3.0,
    }
    return Tiny(pipeline, arguments)


FAMILIES: dict[str, Family] = {"PixArtSigmaPipeline": text_to_image}
