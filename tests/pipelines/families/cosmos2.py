"""Cosmos-Predict2 for pictures, whose states are clean ones plus noise of up to 80 times their size."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import Cosmos2TextToImagePipeline, CosmosTransformer3DModel

from families.family import Family, Tiny
from families.parts import WIDTH, euler, seeded, t5, tokenizer
from families.wan import autoencoder


class Anything:
    """A safety checker that lets everything pass."""

    def to(self, device: torch.device | str) -> Anything:
        return self

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: np.ndarray) -> np.ndarray:
        return frames


def text_to_image() -> Tiny:
    seeded()
    transformer = CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        mlp_ratio=1.0,
        text_embed_dim=WIDTH,
        adaln_lora_dim=4,
        max_size=(1, 8, 8),
    ).eval()
    pipeline = Cosmos2TextToImagePipeline(
        text_encoder=t5(),
        tokenizer=tokenizer(),
        transformer=transformer,
        vae=autoencoder(),
        scheduler=euler(use_karras_sigmas=True),
        safety_checker=Anything(),
    )
    arguments = {
        "height": 16,
        "width": 16,
        "max_sequence_length": 16,
        "negative_prompt": "fog",
        "guidance_scale": 3.0,
    }
    return Tiny(pipeline, arguments)


FAMILIES: dict[str, Family] = {"Cosmos2TextToImagePipeline": text_to_image}
