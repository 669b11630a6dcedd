"""Qwen-Image and Qwen-Image 2.1."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from families.family import Family, Tiny
from families.parts import WIDTH, euler, seeded, tokenizer
from families.qwen import TextProcessor, chatting, qwen2_5_vl, qwen3_vl

SHIFTED = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
GUIDED = {"negative_prompt": "fog", "true_cfg_scale": 4.0}


def autoencoder() -> AutoencoderKLQwenImage:
    """Once down, with statistics of its latents that are not those of a standard normal."""
    seeded(3)
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.0, 2.0],
    ).eval()


def first() -> Tiny:
    seeded()
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    pipeline = QwenImagePipeline(
        scheduler=euler(**SHIFTED),
        vae=autoencoder(),
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        transformer=transformer,
    )
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "{}", 0
    return Tiny(pipeline, {"height": 16, "width": 16, **GUIDED})


def second() -> Tiny:
    """Pictures have an alpha channel."""
    seeded()
    transformer = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    seeded(3)
    vae = AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.0, 2.0],
    ).eval()
    words = chatting()
    words.add_special_tokens({"additional_special_tokens": [TextProcessor.image_token]})
    pipeline = QwenImage21Pipeline(
        scheduler=euler(**SHIFTED),
        vae=vae,
        text_encoder=qwen3_vl(),
        processor=TextProcessor(words, words.chat_template),
        transformer=transformer,
    )
    pipeline.prompt_template_t2i, pipeline._drop_idx = "{}", 0
    # The cache of the text's keys saves what is the same at every step, up to the last bits.
    return Tiny(pipeline, {"height": 32, "width": 32, "use_kv_cache": False, **GUIDED})


FAMILIES: dict[str, Family] = {
    "QwenImagePipeline": first,
    "QwenImage21Pipeline": second,
}
