"""HunyuanVideo."""

from __future__ import annotations

from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from transformers import LlamaConfig, LlamaModel

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, LanguageModel, clip, euler, in_eval_mode, seeded, tokenizer

SIZE = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16}


def autoencoder() -> AutoencoderKLHunyuanVideo:
    """Four times down in space and in time."""
    seeded(3)
    return AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(4,) * 3,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        layers_per_block=1,
        norm_num_groups=1,
        spatial_compression_ratio=4,
    ).eval()


def _components() -> dict[str, object]:
    seeded()
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        mlp_ratio=1.0,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(4, 4, 4),
    ).eval()
    seeded(2)
    settings: LanguageModel = {**LANGUAGE_MODEL, "num_hidden_layers": 3}  # the last two are not read
    return {
        "text_encoder": in_eval_mode(LlamaModel(LlamaConfig(**settings))),
        "tokenizer": tokenizer(),
        "transformer": transformer,
        "vae": autoencoder(),
        "scheduler": euler(shift=7.0),
        "text_encoder_2": clip(),
        "tokenizer_2": tokenizer(),
    }


def _tiny(arguments: dict[str, object]) -> Tiny:
    without_instruction = {"template": "{}", "crop_start": 0}
    return Tiny(HunyuanVideoPipeline(**_components()), {**SIZE, "prompt_template": without_instruction, **arguments})


def distilled() -> Tiny:
    return _tiny({"guidance_scale": 6.0})


def true_guidance() -> Tiny:
    return _tiny({"negative_prompt": "fog", "true_cfg_scale": 3.0})


FAMILIES: dict[str, Family] = {
    "HunyuanVideoPipeline, guidance embedded": distilled,
    "HunyuanVideoPipeline, true guidance": true_guidance,
}
