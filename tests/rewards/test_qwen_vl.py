"""VQAScore by a tiny Qwen2.5-VL, against the model on one row alone, its chat and placeholders written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.picture_suite import PictureRewardSuite
from tiny_vqa import PROMPTS, loud, pictures, saved, tokenizer
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from rollflow.files.pictures import as_pictures
from rollflow.rewards.vqa.qwen_vl import QwenVQAScore

MARKS = ["<start>", "<end>", "<see>", "<pad_of_image>", "<seen>", "<pad_of_video>"]
TEMPLATE = (
    "{% for message in messages %}<start> {{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'image' %}<see><pad_of_image><seen>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<end> {% endfor %}{% if add_generation_prompt %}<start> assistant {% endif %}"
)
QUESTION = 'Does this figure show "{}"? Please answer Yes or No.'


class Parts(NamedTuple):
    folder: Path
    model: Qwen2_5_VLForConditionalGeneration
    words: PreTrainedTokenizerFast
    patches: Qwen2VLImageProcessorPil


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("qwen")
    texts = ["user assistant", QUESTION.format(""), "Yes", *PROMPTS]
    words = tokenizer(texts, "$A", additional_special_tokens=MARKS, chat_template=TEMPLATE)
    ids: dict[str, Any] = {mark: words.convert_tokens_to_ids(mark) for mark in MARKS}
    patches = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
    text: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "vocab_size": len(words),
    }
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": 1}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    vision: dict[str, Any] = {"depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32}
    vision |= {"intermediate_size": 16, "window_size": 16, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<pad_of_image>"],
        video_token_id=ids["<pad_of_video>"],
        vision_start_token_id=ids["<see>"],
        vision_end_token_id=ids["<seen>"],
    )
    model = loud(Qwen2_5_VLForConditionalGeneration(config))
    for network in (model, words, patches):
        saved(network, folder)
    return Parts(folder, model, words, patches)


@pytest.fixture(scope="module")
def qwen(parts: Parts) -> QwenVQAScore:
    return QwenVQAScore(checkpoint=str(parts.folder), device="cpu", batch_size=3)


@torch.no_grad()
def by_hand(parts: Parts, given: Tensor, prompt: str) -> float:
    """The share of "Yes" after the chat of one row."""
    seen = parts.patches(images=as_pictures(given[None]), return_tensors="pt")
    _, tall, wide = seen.image_grid_thw[0].tolist()
    places = "<pad_of_image>" * (tall * wide // 4)
    chat = f"<start> user <see>{places}<seen>{QUESTION.format(prompt)}<end> <start> assistant "
    ids = parts.words(chat, return_tensors="pt").input_ids
    assert (ids != parts.words.unk_token_id).all()
    kinds = (ids == parts.words.convert_tokens_to_ids("<pad_of_image>")).int()
    told = parts.model(input_ids=ids, mm_token_type_ids=kinds, **seen)
    return float(told.logits[0, -1].softmax(-1)[parts.words.convert_tokens_to_ids("Yes")])


@pytest.mark.parametrize("shape", [(20, 28), (24, 16), (70, 40)], ids=str)
def test_scores_are_those_of_the_model_row_by_row(parts: Parts, qwen: QwenVQAScore, shape: tuple[int, int]) -> None:
    given = pictures(*shape)
    expected = [by_hand(parts, picture, prompt) for picture, prompt in zip(given, PROMPTS, strict=True)]
    assert qwen.score(given, PROMPTS).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 1.05 * min(expected)


class TestQwen(PictureRewardSuite):
    @pytest.fixture
    def reward(self, qwen: QwenVQAScore) -> QwenVQAScore:
        return qwen

    @pytest.fixture
    def samples(self) -> Tensor:
        return pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return PROMPTS
