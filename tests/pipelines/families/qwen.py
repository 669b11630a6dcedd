"""Language models of Qwen, from which many pipelines have their text encoder, and what stands before them."""

from __future__ import annotations

from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from families.parts import LANGUAGE_MODEL, WIDTH, seeded, tokenizer

LAST_WORDS = "{{ messages[-1].content if messages[-1].content is string else messages[-1].content[0].text }}"
"""A chat template of nothing but the prompt."""

EYES = {
    "depth": 1,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_heads": 2,
    "out_hidden_size": WIDTH,
    "patch_size": 2,
}
"""Settings of the vision that no text comes by."""


class TextProcessor(ProcessorMixin):
    """The processor of a vision-language model, for those that are shown text alone."""

    image_token = "<|image_pad|>"

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)


def chatting() -> PreTrainedTokenizerFast:
    speaker = tokenizer()
    speaker.chat_template = LAST_WORDS
    return speaker


def qwen2_5_vl() -> nn.Module:
    seeded(2)
    text = {**LANGUAGE_MODEL, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 4]}}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=EYES)).eval()


def qwen3() -> nn.Module:
    seeded(2)
    return Qwen3Model(Qwen3Config(**LANGUAGE_MODEL)).eval()


def qwen3_vl() -> nn.Module:
    seeded(2)
    text = {**LANGUAGE_MODEL, "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2]}}
    vision = {**EYES, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision)).eval()
