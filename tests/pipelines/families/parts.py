"""What many pipelines are made of: tokenizers, text encoders and decoders of a few thousand weights."""

from __future__ import annotations

import functools
import string
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

VOCABULARY = ["<pad>", "</s>", "<unk>", *string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"]
WIDTH = 32
"""Of all text encoders."""

Network = TypeVar("Network", bound=nn.Module)


class LanguageModel(TypedDict):
    """Settings that the configurations of language models have in common."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    pad_token_id: int
    bos_token_id: int
    eos_token_id: int


LANGUAGE_MODEL: LanguageModel = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": WIDTH // 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
"""Settings of any one that is read as a text encoder."""


def tokenizer(
    length: int = 77, kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast
) -> PreTrainedTokenizerFast:
    """A token a character, and one at the end, so that no text is empty."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    specials = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    inputs = ["input_ids", "attention_mask"]
    return kind(tokenizer_object=words, model_max_length=length, model_input_names=inputs, **specials)


def picture(width: int = 16, height: int = 16) -> Image.Image:
    """A gradient from corner to corner."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, (1 - x) * y], -1)).astype(np.uint8))


def mask(width: int = 16, height: int = 16) -> Image.Image:
    """White in the right half, which is to be painted anew."""
    return Image.fromarray(np.where(np.arange(width) * 2 < width, 0, 255).astype(np.uint8)[None].repeat(height, 0))


def enlarge_less(module: Any) -> None:
    """Let an editing pipeline enlarge pictures to 128 x 128 pixels, where it says 1024 x 1024.

    Args:
        module: The pipeline's, whose ``calculate_dimensions(area, ratio)`` decides on the size.
    """
    sizes = module.calculate_dimensions
    if not hasattr(sizes, "__wrapped__"):
        module.calculate_dimensions = functools.wraps(sizes)(lambda area, ratio: sizes(area // 64, ratio))


def seeded(seed: int = 0) -> None:
    """Before every network, so that what it is does not depend on what was made before."""
    torch.manual_seed(seed)


def in_eval_mode(network: Network) -> Network:
    """``network.eval()`` with its type, which transformers' own method does not declare."""
    network.train(False)
    return network


def opened(network: Network) -> Network:
    """With small normals for the weights that start at zero, such as gates: all that it is told reaches its output."""
    seeded(4)
    for weight in network.parameters():
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.1)
    return network


def clip(projected: bool = False) -> nn.Module:
    seeded(1)
    config = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return in_eval_mode(CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config))


def t5(width: int = WIDTH) -> nn.Module:
    seeded(2)
    config = T5Config(vocab_size=len(VOCABULARY), d_model=width, d_ff=WIDTH, d_kv=8, num_layers=1, num_heads=4)
    return in_eval_mode(T5EncoderModel(config))


def autoencoder(channels: int, **settings: object) -> AutoencoderKL:
    """Twice down (one block of width 4, another of 4), ``channels`` latent channels."""
    seeded(3)
    defaults: dict[str, object] = {
        "sample_size": 32,
        "block_out_channels": (4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "latent_channels": channels,
        "norm_num_groups": 1,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "shift_factor": 0.06,
        "scaling_factor": 1.5,
    }
    made = AutoencoderKL(**{**defaults, **settings}).eval()
    with torch.no_grad():
        made.decoder.conv_out.weight.mul_(0.5)  # no pixel near the ends of its range, where it has no derivative
    return made


def euler(**settings: object) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**settings)


def ddim(**settings: object) -> DDIMScheduler:
    """Of Stable Diffusion's noise, ending clean."""
    defaults: dict[str, object] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": True,
    }
    return DDIMScheduler(**{**defaults, **settings})


def unet(**settings: object) -> UNet2DConditionModel:
    """Once down, the text in its lower half."""
    seeded()
    defaults: dict[str, object] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 2,
        "norm_num_groups": 2,
        "cross_attention_dim": WIDTH,
    }
    return UNet2DConditionModel(**{**defaults, **settings}).eval()
