"""LTX-Video."""

from __future__ import annotations

from diffusers import AutoencoderKLLTXVideo, LTXImageToVideoPipeline, LTXPipeline, LTXVideoTransformer3DModel

from families.family import Family, Tiny
from families.parts import WIDTH, euler, picture, seeded, t5, tokenizer


def _autoencoder() -> AutoencoderKLLTXVideo:
    """Sixteen times down in space, four times in time; its decoder is told a time."""
    seeded(3)
    return AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(4, 4),
        down_block_types=("LTXVideoDownBlock3D",) * 2,
        decoder_block_out_channels=(4, 4),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3,
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        timestep_conditioning=True,
    ).eval()


GUIDED = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "max_sequence_length": 16,
    "negative_prompt": "fog",
    "guidance_scale": 3.0,
    "decode_timestep": 0.05,
    "decode_noise_scale": 0.0,
}


def _components() -> dict[str, object]:
    seeded()
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=1,
        caption_channels=WIDTH,
    ).eval()
    shifted = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "shift_terminal": 0.1}
    return {
        "scheduler": euler(use_dynamic_shifting=True, **shifted),
        "vae": _autoencoder(),
        "text_encoder": t5(),
        "tokenizer": tokenizer(),
        "transformer": transformer,
    }


def text_to_video() -> Tiny:
    return Tiny(LTXPipeline(**_components()), GUIDED)


def from_picture() -> Tiny:
    return Tiny(LTXImageToVideoPipeline(**_components()), {**GUIDED, "image": picture(32, 32)})


FAMILIES: dict[str, Family] = {
    "LTXPipeline": text_to_video,
    "LTXImageToVideoPipeline": from_picture,
}
