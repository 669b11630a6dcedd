"""LongCat-Image."""

from __future__ import annotations

from diffusers import LongCatImageEditPipeline, LongCatImagePipeline, LongCatImageTransformer2DModel
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, enlarge_less, euler, picture, seeded, tokenizer
from families.qwen import SIGHTS, PictureProcessor, qwen2_5_vl

GUIDED = {"negative_prompt": "fog", "guidance_scale": 4.5}


def _transformer() -> LongCatImageTransformer2DModel:
    seeded()
    return LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    ).eval()


def image() -> Tiny:
    pipeline = LongCatImagePipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(16),
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        text_processor=None,
        transformer=_transformer(),
    )
    pipeline.prompt_template_encode_prefix, pipeline.prompt_template_encode_suffix = "", "\n"
    pipeline.tokenizer_max_length = 16
    return Tiny(pipeline, {"height": 16, "width": 16, "enable_prompt_rewrite": False, **GUIDED})


def editing() -> Tiny:
    """Eight by eight pixels of the enlarged picture are a latent."""
    enlarge_less(pipeline_longcat_image_edit)
    processor = PictureProcessor()
    blocks = {
        "block_out_channels": (4, 4, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    pipeline = LongCatImageEditPipeline(
        scheduler=euler(use_dynamic_shifting=True),
        vae=autoencoder(16, **blocks),
        text_encoder=qwen2_5_vl(len(SIGHTS)),
        tokenizer=processor.tokenizer,
        text_processor=processor,
        transformer=_transformer(),
    )
    pipeline.prompt_template_encode_prefix, pipeline.prompt_template_encode_suffix = "".join(reversed(SIGHTS)), "\n"
    pipeline.tokenizer_max_length = 16
    return Tiny(pipeline, {**GUIDED, "image": picture()})


FAMILIES: dict[str, Family] = {
    "LongCatImagePipeline": image,
    "LongCatImageEditPipeline": editing,
}
