"""Wan 2.1 and 2.2."""

from __future__ import annotations

from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

from families.family import Family, Tiny
from families.parts import WIDTH, euler, seeded, t5, tokenizer

GUIDED = {
    "height": 16,
    "width": 16,
    "num_frames": 5,
    "max_sequence_length": 16,
    "negative_prompt": "fog",
    "guidance_scale": 3.0,
}


def autoencoder(**settings: object) -> AutoencoderKLWan:
    """Four times down in space and in time."""
    seeded(3)
    defaults: dict[str, object] = {
        "base_dim": 8,
        "z_dim": 4,
        "dim_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "latents_mean": [0.3, -0.2, 0.1, -0.4],
        "latents_std": [1.5, 0.8, 1.2, 0.6],
        "scale_factor_spatial": 4,
    }
    return AutoencoderKLWan(**{**defaults, **settings}).eval()


def _transformer(seed: int = 0) -> WanTransformer3DModel:
    seeded(seed)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    ).eval()


def _components() -> dict[str, object]:
    return {
        "tokenizer": tokenizer(),
        "text_encoder": t5(),
        "vae": autoencoder(),
        "scheduler": euler(shift=3.0),
        "transformer": _transformer(),
    }


def single() -> Tiny:
    return Tiny(WanPipeline(**_components()), GUIDED)


def experts() -> Tiny:
    pipeline = WanPipeline(**_components(), transformer_2=_transformer(1), boundary_ratio=0.875)
    return Tiny(pipeline, {**GUIDED, "guidance_scale_2": 4.0})


def token_times() -> Tiny:
    high = autoencoder(is_residual=True, in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=8)
    pipeline = WanPipeline(**{**_components(), "vae": high}, expand_timesteps=True)
    return Tiny(pipeline, {**GUIDED, "height": 32, "width": 32})


FAMILIES: dict[str, Family] = {
    "WanPipeline": single,
    "WanPipeline, two transformers": experts,
    "WanPipeline, times of tokens": token_times,
}
