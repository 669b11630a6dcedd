"""Wan 2.1 and 2.2."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLWan,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from families.family import Family, Tiny
from families.parts import WIDTH, euler, in_eval_mode, picture, seeded, t5, tokenizer

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


def _transformer(seed: int = 0, **settings: int) -> WanTransformer3DModel:
    seeded(seed)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=settings.pop("in_channels", 4),
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
        **settings,
    ).eval()


def _image_encoder() -> nn.Module:
    seeded(5)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    return in_eval_mode(CLIPVisionModel(config))


def _components(**settings: int) -> dict[str, object]:
    return {
        "tokenizer": tokenizer(),
        "text_encoder": t5(),
        "vae": autoencoder(),
        "scheduler": euler(shift=3.0),
        "transformer": _transformer(**settings),
    }


def single() -> Tiny:
    return Tiny(WanPipeline(**_components()), GUIDED)


def experts() -> Tiny:
    pipeline = WanPipeline(**_components(), transformer_2=_transformer(1), boundary_ratio=0.875)
    return Tiny(pipeline, {**GUIDED, "guidance_scale_2": 4.0})


def _high() -> AutoencoderKLWan:
    return autoencoder(is_residual=True, in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=8)


def token_times() -> Tiny:
    pipeline = WanPipeline(**{**_components(), "vae": _high()}, expand_timesteps=True)
    return Tiny(pipeline, {**GUIDED, "height": 32, "width": 32})


def from_picture() -> Tiny:
    """Told the first frame and which frames are given, 4 of them a latent, beside the latents, and by an encoder."""
    pipeline = WanImageToVideoPipeline(
        **_components(in_channels=4 + 4 + 4, image_dim=WIDTH, added_kv_proj_dim=24),
        image_encoder=_image_encoder(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
    )
    return Tiny(pipeline, {**GUIDED, "image": picture(), "max_sequence_length": 512})  # which its network reckons with


def from_picture_token_times() -> Tiny:
    """The first frame takes the place of the latents."""
    pipeline = WanImageToVideoPipeline(**{**_components(), "vae": _high()}, expand_timesteps=True)
    return Tiny(pipeline, {**GUIDED, "height": 32, "width": 32, "image": picture(32, 32)})


def from_video() -> Tiny:
    given = {name: value for name, value in GUIDED.items() if name != "num_frames"}
    pipeline = WanVideoToVideoPipeline(**_components())
    return Tiny(pipeline, {**given, "video": [picture()] * 5, "strength": 0.6})


FAMILIES: dict[str, Family] = {
    "WanPipeline": single,
    "WanPipeline, two transformers": experts,
    "WanPipeline, times of tokens": token_times,
    "WanImageToVideoPipeline": from_picture,
    "WanImageToVideoPipeline, times of tokens": from_picture_token_times,
    "WanVideoToVideoPipeline": from_video,
}
