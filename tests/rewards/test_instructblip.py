"""VQAScore by a tiny InstructBLIP, against what the model of transformers itself says of one row alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.picture_suite import PictureRewardSuite
from tiny_vqa import PROMPTS, loud, pictures, saved, slopes, tokenizer
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from rollflow.files.pictures import as_pictures
from rollflow.rewards.vqa.instructblip import LONGEST, InstructBlipVQAScore

SIDE = 28
QUESTION = 'Question: Does this figure show "{}"? Please answer yes or no.'
QUERIES = 3


class Parts(NamedTuple):
    folder: Path
    blip: InstructBlipForConditionalGeneration
    words: PreTrainedTokenizerFast
    of_qformer: PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("instructblip")
    texts = [QUESTION.format(""), *PROMPTS]
    words, of_qformer = tokenizer(texts), tokenizer(texts, "[CLS] $A </s>")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**sizes, "image_size": SIDE, "patch_size": 14}
    text: dict[str, Any] = {"d_model": 24, "d_kv": 6, "d_ff": 16, "num_layers": 2, "num_heads": 4}
    text |= {"model_type": "t5", "vocab_size": len(words), "decoder_start_token_id": 0, "tie_word_embeddings": False}
    text |= {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"}
    reading = {**sizes, "vocab_size": len(of_qformer), "max_position_embeddings": 160}
    image_token = words.convert_tokens_to_ids("<image>")
    assert isinstance(image_token, int)
    config = InstructBlipConfig(
        vision_config=vision,
        qformer_config=reading,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=image_token,
    )
    blip = loud(InstructBlipForConditionalGeneration(config))
    head: Any = blip.get_submodule("language_model.lm_head")
    head.weight = nn.Parameter(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1)))
    for network, name in ((blip, "."), (words, "."), (of_qformer, "qformer_tokenizer")):
        saved(network, folder / name)
    return Parts(folder, blip, words, of_qformer)


@pytest.fixture(scope="module")
def instructblip(parts: Parts) -> InstructBlipVQAScore:
    return InstructBlipVQAScore(checkpoint=str(parts.folder), device="cpu", batch_size=3)


@torch.no_grad()
def by_transformers(parts: Parts, given: Tensor, prompt: str) -> float:
    """Its own forward pass, with a placeholder for each query before the question, and its own loss."""
    prepare = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    seen = prepare(as_pictures(given[None]), return_tensors="pt")
    question = parts.words(QUESTION.format(prompt), return_tensors="pt").input_ids
    assert (question != parts.words.unk_token_id).all()
    image_token = parts.blip.config.image_token_index
    assert image_token is not None
    places = torch.full((1, QUERIES), image_token)
    told = parts.blip(
        pixel_values=seen.pixel_values,
        qformer_input_ids=parts.of_qformer(QUESTION.format(prompt), return_tensors="pt").input_ids,
        input_ids=torch.cat([places, question], 1),
        labels=parts.words("yes", return_tensors="pt").input_ids,
    )
    return float((-told.loss).exp())


@pytest.mark.parametrize("shape", [(40, 28), (31, 45)], ids=str)
def test_scores_are_those_of_the_model_row_by_row(
    parts: Parts, instructblip: InstructBlipVQAScore, shape: tuple[int, int]
) -> None:
    given = pictures(*shape)
    expected = [by_transformers(parts, picture, prompt) for picture, prompt in zip(given, PROMPTS, strict=True)]
    assert instructblip.score(given, PROMPTS).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 1.05 * min(expected)


def test_weights_and_activation_are_the_published_ones(parts: Parts, instructblip: InstructBlipVQAScore) -> None:
    """An output layer of its own, and GELU where the T5 that it was made from has its approximation."""
    language = instructblip.networks.blip.language_model
    assert torch.equal(language.lm_head.weight, parts.blip.language_model.lm_head.weight)
    assert not torch.equal(language.lm_head.weight, language.shared.weight)
    assert language.config.dense_act_fn == "gelu"
    assert not language.config.scale_decoder_outputs


def test_of_a_long_question_the_end_is_read(instructblip: InstructBlipVQAScore) -> None:
    _, tokens, words, _ = instructblip.networks
    long = QUESTION.format("red " * 300)
    short = tokens(QUESTION.format("red"))
    assert len(tokens(long)) == len(words(long)) == LONGEST
    assert tokens(long)[-8:].tolist() == short[-8:].tolist()


def test_gradients_are_those_of_the_values(parts: Parts) -> None:
    """By a network in float64."""
    exact = InstructBlipVQAScore(checkpoint=str(parts.folder), device="cpu")
    exact.networks.blip.double()
    exact.dtype = torch.float64
    given = pictures(36, 30, rows=2) * 0.6 + 0.2
    slope, predicted = slopes(lambda pixels: exact.score(pixels, PROMPTS[:2]).log().sum(), given)
    assert slope == pytest.approx(predicted, rel=1e-2)
    assert abs(slope) > 1e-2


class TestInstructBlip(PictureRewardSuite):
    @pytest.fixture
    def reward(self, instructblip: InstructBlipVQAScore) -> InstructBlipVQAScore:
        return instructblip

    @pytest.fixture
    def samples(self) -> Tensor:
        return pictures(40, 28)

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return PROMPTS
