"""Language models of Qwen, from which many pipelines have their text encoder, and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import nn
from transformers import (
    BatchFeature,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from families.parts import LANGUAGE_MODEL, VOCABULARY, WIDTH, in_eval_mode, seeded, tokenizer

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
        super().__init__(tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call]  # transformers'


SIGHTS = (TextProcessor.image_token, "<|vision_start|>")
"""What stands for a picture in a text, and before it."""


def seeing() -> PreTrainedTokenizerFast:
    reader = tokenizer()
    reader.add_special_tokens({"additional_special_tokens": list(SIGHTS)})
    return reader


class PictureProcessor:
    """The processor of a vision-language model that is shown pictures, as four patches or less a side."""

    def __init__(self) -> None:
        self.tokenizer = seeing()
        self.image_processor = Qwen2VLImageProcessorPil(patch_size=2, min_pixels=16, max_pixels=64)

    def __call__(
        self, text: Sequence[str], images: Image.Image | list[Image.Image], **settings: object
    ) -> BatchFeature:
        shown = self.image_processor(images=images, return_tensors="pt")
        lengths = (shown["image_grid_thw"].prod(1) // self.image_processor.merge_size**2).tolist()
        for length in lengths:
            text = [one.replace(SIGHTS[0], "\t" * length, 1) for one in text]
        text = [one.replace("\t", SIGHTS[0]) for one in text]
        return BatchFeature({**self.tokenizer(text, **settings), **shown})


def chatting() -> PreTrainedTokenizerFast:
    speaker = tokenizer()
    speaker.chat_template = LAST_WORDS
    return speaker


def qwen2_5_vl(sights: int = 0) -> nn.Module:
    """Knows so many of ``SIGHTS``."""
    seeded(2)
    size = {"vocab_size": len(VOCABULARY) + sights}
    text = {**LANGUAGE_MODEL, **size, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 4]}}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=EYES, image_token_id=len(VOCABULARY))
    return in_eval_mode(Qwen2_5_VLForConditionalGeneration(config))


def qwen3() -> nn.Module:
    seeded(2)
    return in_eval_mode(Qwen3Model(Qwen3Config(**LANGUAGE_MODEL)))


def qwen3_vl() -> nn.Module:
    seeded(2)
    text = {**LANGUAGE_MODEL, "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2]}}
    vision = {**EYES, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return in_eval_mode(Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision)))
