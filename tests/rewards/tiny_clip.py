"""A CLIP of a few thousand weights, saved as the published ones are, and what every reward by one is held to."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from rollflow.files.pictures import as_pictures
from rollflow.rewards.base import PictureReward

Network = TypeVar("Network", bound=nn.Module)

LETTERS = [*string.ascii_lowercase, *string.digits, *string.punctuation]
VOCABULARY = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
PROMPTS = ("a cat", "two CATS, on grass", "a cat", "one dog")
LONG = "a cat, " * 60


def tokenizer() -> CLIPTokenizer:
    """Letters, of which only those of "cat" are ever joined."""
    ids = {token: i for i, token in enumerate(VOCABULARY)}
    return CLIPTokenizer(ids, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=77)  # type: ignore[list-item]


def shaken(network: Network, seed: int = 0, std: float = 0.15) -> Network:
    """Every weight drawn anew, none of them alike, so that a confusion of two shows."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.normal_(0, std, generator=draw)
            if "norm" in name and name.endswith("weight"):
                weight.add_(1)
    return network.eval()


def clip(seed: int = 0) -> CLIPModel:
    end = len(VOCABULARY) - 1
    config = CLIPConfig(
        text_config={
            "vocab_size": len(VOCABULARY),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 77,
            "hidden_act": "gelu",
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={
            "hidden_size": 20,
            "intermediate_size": 28,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 224,
            "patch_size": 56,
            "hidden_act": "gelu",
        },
        projection_dim=12,
    )
    return shaken(CLIPModel(config), seed)


def saved(folder: Path, seed: int = 0) -> CLIPModel:
    """The network of a seed; the folder is as a repository of the hub."""
    model = clip(seed)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def pictures(rows: int = 4, height: int = 40, width: int = 30) -> Tensor:
    """Squares of colour, away from 0 and 1, where resizing would clamp."""
    draw = torch.Generator().manual_seed(rows)
    coarse = torch.rand(rows, 3, 5, 5, generator=draw) * 0.5 + 0.25
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def processed(pixels: Tensor) -> Tensor:
    """As the processor of transformers makes pictures ready for CLIP."""
    ready: Tensor = CLIPImageProcessorPil()(as_pictures(pixels), return_tensors="pt")["pixel_values"]
    return ready


def cosines(model: CLIPModel, pixels: Tensor, prompts: list[str]) -> Tensor:
    """As the whole network of transformers gives them, of prompts filled to one length."""
    texts = tokenizer()(prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        logits = model(pixel_values=processed(pixels), **texts).logits_per_image
    cosines: Tensor = logits.diagonal() / model.logit_scale.detach().exp()
    return cosines


def assert_gradient_is_the_slope(reward: PictureReward, pixels: Tensor, prompts: list[str]) -> None:
    """Along the gradient a picture's score must rise by its length, and by nothing else as fast."""
    leaf = pixels.clone().requires_grad_()
    [gradient] = torch.autograd.grad(reward.score(leaf, prompts).sum(), leaf)
    for row in range(len(pixels)):
        length = gradient[row].norm()
        step = 0.004 * gradient[row] / length
        ends = torch.stack([pixels[row] + step, pixels[row] - step]).requires_grad_()
        up, down = reward.score(ends, [prompts[row]] * 2).tolist()
        assert (up - down) / 0.008 == pytest.approx(float(length), rel=0.01)
