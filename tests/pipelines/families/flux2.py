"""FLUX.2, distilled for guidance, and its small sibling Klein."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLFlux2,
    Flux2KleinInpaintPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from torch import nn
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from families.family import Family, Tiny
from families.parts import LANGUAGE_MODEL, WIDTH, euler, in_eval_mode, mask, picture, seeded, tokenizer

LAYERS = (1, 2)
"""Of the language model, from whose states the text is made."""

SIZE = {"height": 16, "width": 16, "max_sequence_length": 16, "text_encoder_out_layers": LAYERS}

LAST_WORDS = "{{ messages[-1].content if messages[-1].content is string else messages[-1].content[0].text }}\n"
"""A chat template without the long system message, which would leave no room for the prompt."""


def _transformer(guidance_embeds: bool) -> Flux2Transformer2DModel:
    seeded()
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=len(LAYERS) * WIDTH,
        timestep_guidance_channels=16,
        mlp_ratio=1.0,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    ).eval()


def _autoencoder() -> AutoencoderKLFlux2:
    """Twice down, with statistics of its latents that are not those of a standard normal."""
    seeded(3)
    autoencoder = AutoencoderKLFlux2(
        sample_size=32,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
    )
    with torch.no_grad():
        autoencoder.bn.running_mean.normal_(std=0.3)
        autoencoder.bn.running_var.uniform_(0.5, 2.0)
    return autoencoder.eval()


def _mistral() -> nn.Module:
    seeded(2)
    vision = {
        "model_type": "pixtral",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": WIDTH // 2,
        "image_size": 8,
        "patch_size": 4,
    }
    text = {"model_type": "mistral", **LANGUAGE_MODEL}
    return in_eval_mode(Mistral3ForConditionalGeneration(Mistral3Config(vision_config=vision, text_config=text)))


def _qwen() -> nn.Module:
    seeded(2)
    return in_eval_mode(Qwen3ForCausalLM(Qwen3Config(**LANGUAGE_MODEL)))


def _chatting() -> PreTrainedTokenizerFast:
    chatting = tokenizer()
    chatting.chat_template = LAST_WORDS
    return chatting


def _components(text_encoder: nn.Module, guidance_embeds: bool) -> dict[str, object]:
    return {
        "scheduler": euler(use_dynamic_shifting=True),
        "transformer": _transformer(guidance_embeds),
        "vae": _autoencoder(),
        "text_encoder": text_encoder,
        "tokenizer": _chatting(),
    }


def distilled() -> Tiny:
    return Tiny(Flux2Pipeline(**_components(_mistral(), True)), {**SIZE, "guidance_scale": 2.5})


def klein() -> Tiny:
    return Tiny(Flux2KleinPipeline(**_components(_qwen(), False)), {**SIZE, "guidance_scale": 4.0})


def klein_inpainting() -> Tiny:
    given = {**SIZE, "guidance_scale": 4.0, "image": picture(), "mask_image": mask(), "strength": 0.6}
    return Tiny(Flux2KleinInpaintPipeline(**_components(_qwen(), False)), given)


FAMILIES: dict[str, Family] = {
    "Flux2Pipeline": distilled,
    "Flux2KleinPipeline": klein,
    "Flux2KleinInpaintPipeline": klein_inpainting,
}
