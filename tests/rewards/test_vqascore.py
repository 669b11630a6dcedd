"""VQAScore by a tiny CLIP-FlanT5 in the published layout, against the loss of its parts on one row alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_suite import PictureRewardSuite
from tiny_vqa import PROMPTS, loud, pictures, saved, slopes, tokenizer
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from rollflow.errors import RollflowError, UnknownName
from rollflow.files.pictures import as_pictures
from rollflow.rewards.pretrained.preprocessing import CLIP_MEAN, CLIP_STD
from rollflow.rewards.vqa.instructblip import InstructBlipVQAScore
from rollflow.rewards.vqa.vqascore import VQAScore

SIDE = 28
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Parts(NamedTuple):
    folder: Path
    t5: T5ForConditionalGeneration
    tower: CLIPVisionModel
    projector: nn.Sequential
    words: PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Made apart and written as the authors did: T5 and projector in one file, the tower in a repository of its own."""
    folder = tmp_path_factory.mktemp("clip-flant5")
    words = tokenizer([SYSTEM, 'USER: Does this figure show ""? Please answer yes or no. ASSISTANT:', "Yes", *PROMPTS])
    tower = loud(
        CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=SIDE,
                patch_size=14,
            )
        )
    )
    shape: dict[str, Any] = {
        "d_model": 24,
        "d_kv": 6,
        "d_ff": 16,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": len(words),
    }
    settings = {**shape, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    t5 = loud(T5ForConditionalGeneration(T5Config(**settings)))
    head: Any = t5.lm_head
    head.weight = nn.Parameter(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1)))
    projector = loud(nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 24)))
    for network, name in ((tower, "tower"), (words, "words")):
        saved(network, folder / name)
    weights = t5.state_dict() | {f"mm_projector.{name}": value for name, value in projector.state_dict().items()}
    weights |= {
        "vision_tower.vision_tower.left_over": torch.ones(1),
        "embed_tokens.weight": t5.get_parameter("shared.weight").detach(),
    }
    torch.save(weights, folder / "pytorch_model.bin")
    published = {
        "model_type": "clip_t5",
        "architectures": ["CLIPT5ForConditionalGeneration"],
        "mm_vision_tower": str(folder / "tower"),
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(published))
    return Parts(folder, t5, tower, projector, words)


@pytest.fixture(scope="module")
def vqascore(parts: Parts) -> VQAScore:
    return VQAScore(checkpoint=str(parts.folder), tokenizer=str(parts.folder / "words"), device="cpu", batch_size=3)


def squared(picture: Image.Image) -> Tensor:
    """As the authors prepare it, by PIL alone."""
    colour = tuple(int(255 * mean) for mean in CLIP_MEAN)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    values = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255
    return torch.from_numpy((values - CLIP_MEAN) / CLIP_STD).permute(2, 0, 1).float()


@torch.no_grad()
def by_hand(parts: Parts, picture: Image.Image, prompt: str) -> float:
    """exp of minus T5's own loss on the row that the authors' splicing makes."""
    before = parts.words(f"{SYSTEM} USER: ", return_tensors="pt").input_ids
    question = f'\nDoes this figure show "{prompt}"? Please answer yes or no. ASSISTANT: '
    after = parts.words(question, return_tensors="pt").input_ids
    assert before[0, -1] == after[0, -1] == parts.words.eos_token_id
    assert (torch.cat([before, after], 1) != parts.words.unk_token_id).all()
    seen = parts.tower(squared(picture)[None], output_hidden_states=True).hidden_states[-2][:, 1:]
    row = torch.cat([parts.t5.shared(before), parts.projector(seen), parts.t5.shared(after)], 1)
    return float((-parts.t5(inputs_embeds=row, labels=parts.words("Yes", return_tensors="pt").input_ids).loss).exp())


@pytest.mark.parametrize("shape", [(20, 28), (31, 17), (28, 28)], ids=str)
def test_scores_are_those_of_the_parts_row_by_row(parts: Parts, vqascore: VQAScore, shape: tuple[int, int]) -> None:
    """Prompts of different lengths together: what pads the shorter ones changes nothing."""
    given = pictures(*shape)
    expected = [by_hand(parts, picture, prompt) for picture, prompt in zip(as_pictures(given), PROMPTS, strict=True)]
    assert vqascore.score(given, PROMPTS).tolist() == pytest.approx(expected, rel=1e-4)
    assert max(expected) > 1.05 * min(expected)


def test_every_weight_is_the_published_one(parts: Parts, vqascore: VQAScore) -> None:
    """The output layer above all, which transformers 5 would rather tie to the embedding."""
    loaded = vqascore.networks.flant5.language.state_dict()
    assert not torch.equal(parts.t5.lm_head.weight, parts.t5.shared.weight)
    for name, value in parts.t5.state_dict().items():
        assert torch.equal(loaded[name], value), name
    assert not vqascore.networks.flant5.language.config.scale_decoder_outputs


def test_gradients_are_those_of_the_values(parts: Parts) -> None:
    """By a network in float64."""
    words = str(parts.folder / "words")
    exact = VQAScore(checkpoint=str(parts.folder), tokenizer=words, device="cpu")
    exact.networks.flant5.double()
    exact.dtype = torch.float64
    given = pictures(14, 20, rows=2) * 0.6 + 0.2
    slope, predicted = slopes(lambda pixels: exact.score(pixels, PROMPTS[:2]).log().sum(), given)
    assert slope == pytest.approx(predicted, rel=1e-2)
    assert abs(slope) > 1e-2


def test_sizes_and_precisions_by_name() -> None:
    assert (VQAScore().checkpoint, VQAScore().vocabulary) == ("zhiqiulin/clip-flant5-xxl", "google/flan-t5-xxl")
    assert VQAScore(size="xl").checkpoint == "zhiqiulin/clip-flant5-xl"
    assert VQAScore(device="cpu").dtype == torch.float32
    assert VQAScore(device="cuda").dtype == torch.bfloat16
    with pytest.raises(UnknownName, match="did you mean 'xl'"):
        VQAScore(size="xll")
    with pytest.raises(UnknownName, match="dtype 'bfloat'"):
        VQAScore(dtype="bfloat")


def test_what_sets_it_apart() -> None:
    """All that scores depend on; the precision also where it follows from the device."""
    assert VQAScore(device="cpu").identity == VQAScore(dtype="float32").identity == "vqascore(float32)"
    assert VQAScore(device="cuda").identity == VQAScore(dtype="bfloat16").identity == "vqascore(bfloat16)"
    assert VQAScore("xl", device="cpu").identity == "vqascore(zhiqiulin/clip-flant5-xl, float32)"
    assert VQAScore(device="cpu", tower="clip").identity == "vqascore(float32, tower=clip)"
    other = VQAScore("xl", "mine", "cpu").identity
    assert other == "vqascore(mine, float32, tokenizer=google/flan-t5-xl)"
    assert VQAScore("xxl", "mine", "cpu", tokenizer="google/flan-t5-xl").identity == other
    assert InstructBlipVQAScore(device="cpu").identity != InstructBlipVQAScore(device="cuda").identity


def test_in_bfloat16_only_the_probability_is_not(parts: Parts) -> None:
    words = str(parts.folder / "words")
    rough = VQAScore(checkpoint=str(parts.folder), tokenizer=words, device="cpu", dtype="bfloat16")
    scores = rough.score(pictures(), PROMPTS)
    assert {weight.dtype for weight in rough.networks.flant5.parameters()} == {torch.bfloat16}
    assert scores.dtype == torch.float32
    assert ((scores > 0) & (scores < 1)).all()


def test_a_flan_t5_without_a_projector_is_refused(parts: Parts, tmp_path: Path) -> None:
    reward = VQAScore(checkpoint=saved(parts.t5, tmp_path), tokenizer=str(parts.folder / "words"), device="cpu")
    with pytest.raises(RollflowError, match=r"some are missing, such as mm_projector"):
        reward.load()


class TestVQAScore(PictureRewardSuite):
    @pytest.fixture
    def reward(self, vqascore: VQAScore) -> VQAScore:
        return vqascore

    @pytest.fixture
    def samples(self) -> Tensor:
        return pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return PROMPTS
