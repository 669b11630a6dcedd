"""Z-Image, guided, and as its distilled sibling is called."""

from __future__ import annotations

from diffusers import ZImagePipeline, ZImageTransformer2DModel
from torch import nn

from families.family import Family, Tiny
from families.parts import WIDTH, autoencoder, euler, opened, seeded
from families.qwen import chatting, qwen3

SIZE = {"height": 16, "width": 16, "max_sequence_length": 16}


def _transformer() -> nn.Module:
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


def _pipeline(shift: float) -> ZImagePipeline:
    return ZImagePipeline(
        scheduler=euler(shift=shift),
        vae=autoencoder(4),
        text_encoder=qwen3(),
        tokenizer=chatting(),
        transformer=_transformer(),
    )


def guided() -> Tiny:
    return Tiny(_pipeline(6.0), {**SIZE, "negative_prompt": "fog", "guidance_scale": 4.0})


def distilled() -> Tiny:
    return Tiny(_pipeline(3.0), {**SIZE, "guidance_scale": 0.0})


FAMILIES: dict[str, Family] = {
    "ZImagePipeline, guided": guided,
    "ZImagePipeline, distilled": distilled,
}
