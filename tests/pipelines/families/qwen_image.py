"""Qwen-Image and Qwen-Image 2.1."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    DiffusionPipeline,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

from families.family import Family, Tiny
from families.parts import WIDTH, enlarge_less, euler, mask, picture, seeded, tokenizer
from families.qwen import SIGHTS, PictureProcessor, TextProcessor, chatting, qwen2_5_vl, qwen3_vl

SHIFTED = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
GUIDED = {"negative_prompt": "fog", "true_cfg_scale": 4.0}


def autoencoder(*widths: int) -> AutoencoderKLQwenImage:
    """Once down where no widths are given, with statistics of its latents that are not those of a standard normal."""
    seeded(3)
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=list(widths or (1, 2)),
        num_res_blocks=1,
        temperal_downsample=[False] * (len(widths or (1, 2)) - 1),
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.0, 2.0],
    ).eval()


def _transformer() -> QwenImageTransformer2DModel:
    seeded()
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    ).eval()


def _first(kind: type[DiffusionPipeline], **given: object) -> Tiny:
    pipeline = kind(
        scheduler=euler(**SHIFTED),
        vae=autoencoder(),
        text_encoder=qwen2_5_vl(),
        tokenizer=tokenizer(),
        transformer=_transformer(),
    )
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "{}", 0
    return Tiny(pipeline, {"height": 16, "width": 16, **GUIDED, **given})


def first() -> Tiny:
    return _first(QwenImagePipeline)


def from_picture() -> Tiny:
    return _first(QwenImageImg2ImgPipeline, image=picture(), strength=0.6)


def inpainting() -> Tiny:
    return _first(QwenImageInpaintPipeline, image=picture(), mask_image=mask(), strength=0.6)


def _editing(kind: type[DiffusionPipeline]) -> Tiny:
    """Eight by eight pixels of the enlarged picture are a latent."""
    enlarge_less(pipeline_qwenimage_edit)
    enlarge_less(pipeline_qwenimage_edit_plus)
    processor = PictureProcessor()
    pipeline = kind(
        scheduler=euler(**SHIFTED),
        vae=autoencoder(1, 1, 4, 4),
        text_encoder=qwen2_5_vl(len(SIGHTS)),
        tokenizer=processor.tokenizer,
        processor=processor,
        transformer=_transformer(),
    )
    template = f"{SIGHTS[0]}{{}}" if kind is QwenImageEditPipeline else "{}"  # the other puts pictures there itself
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = template, 0
    return Tiny(pipeline, {"height": 64, "width": 64, **GUIDED, "image": picture()})


def editing() -> Tiny:
    return _editing(QwenImageEditPipeline)


def editing_several() -> Tiny:
    return _editing(QwenImageEditPlusPipeline)


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
    "QwenImageImg2ImgPipeline": from_picture,
    "QwenImageInpaintPipeline": inpainting,
    "QwenImageEditPipeline": editing,
    "QwenImageEditPlusPipeline": editing_several,
    "QwenImage21Pipeline": second,
}
