"""Z-Image, guided, and as its distilled sibling is called."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, mask, opened, picture, seeded
from families.qwen import chatting, qwen3

SIZE = {"height": 16, "width": 16, "max_sequence_length": 16}
GUIDED = {"negative_prompt": "fog", "guidance_scale": 4.0}


def _transformer() -> ZImageTransformer2DModel:
    seeded()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8],
        axes_lens=[128, 16, 16],
    )
    return opened(transformer).eval()


def _pipeline(shift: float, kind: type[DiffusionPipeline] = ZImagePipeline) -> DiffusionPipeline:
    return kind(
        scheduler=euler(shift=shift),
        vae=autoencoder(4),
        text_encoder=qwen3(),
        tokenizer=chatting(),
        transformer=_transformer(),
    )


def guided() -> Tiny:
    return Tiny(_pipeline(6.0), {**SIZE, **GUIDED})


def distilled() -> Tiny:
    return Tiny(_pipeline(3.0), {**SIZE, "guidance_scale": 0.0})


def from_picture() -> Tiny:
    given = {**SIZE, **GUIDED, "image": picture(), "strength": 0.6}
    return Tiny(_pipeline(6.0, ZImageImg2ImgPipeline), given)


def inpainting() -> Tiny:
    given = {**SIZE, **GUIDED, "image": picture(), "mask_image": mask(), "strength": 0.6}
    return Tiny(_pipeline(6.0, ZImageInpaintPipeline), given)


FAMILIES: dict[str, Family] = {
    "ZImagePipeline, guided": guided,
    "ZImagePipeline, distilled": distilled,
    "ZImageImg2ImgPipeline": from_picture,
    "ZImageInpaintPipeline": inpainting,
}
