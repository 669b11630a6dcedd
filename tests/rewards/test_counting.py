"""Counting by a tiny GroundingDINO and a tiny SAM, against their own processors in transformers."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.picture_suite import PictureRewardSuite
from tiny_vqa import loud, pictures, saved
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    PreTrainedTokenizerFast,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
)

from rollflow.errors import RollflowError
from rollflow.files.pictures import as_pictures
from rollflow.prompts import Prompt
from rollflow.rewards import RewardModel
from rollflow.rewards.counting.base import CountingNetworks, NothingAsked
from rollflow.rewards.counting.boxes import Boxes
from rollflow.rewards.counting.counting import Counting, CountingAccuracy
from rollflow.rewards.counting.grounding import GroundingDetector, Segmenter, Shorter, spans
from rollflow.rewards.counting.smooth_counting import FAINTEST, SmoothCounting
from rollflow.rewards.pretrained.preprocessing import Bilinear

SIDE = 64


def bert() -> PreTrainedTokenizerFast:
    """Pieces of one letter, at the ids at which GroundingDINO knows what ends a name."""
    words = [f"[unused{i}]" for i in range(1030)]
    words[0], words[100], words[101], words[102], words[1012], words[1029] = (
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        ".",
        "?",
    )
    pieces = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    words[200 : 200 + len(pieces)] = pieces
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 101), ("[SEP]", 102)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    dino, sam = tmp_path_factory.mktemp("dino"), tmp_path_factory.mktemp("sam")
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "image_size": SIDE,
            "embed_dim": 8,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 1, 1],
            "window_size": 2,
            "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": 1030,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        },
        d_model=32,
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
    )
    saved(loud(GroundingDinoForObjectDetection(config), 0.1), dino)
    saved(bert(), dino)
    heads = {"num_attention_heads": 2, "mlp_dim": 32}
    segmenter = SamConfig(
        vision_config={
            **heads,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "image_size": SIDE,
            "output_channels": 32,
            "global_attn_indexes": [0],
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config={**heads, "hidden_size": 32, "iou_head_hidden_dim": 16, "num_hidden_layers": 1},
    )
    saved(loud(SamModel(segmenter), 0.2), sam)
    return dino, sam


def counting(folders: tuple[Path, Path], kind: type[Counting] = Counting, **settings: Any) -> Counting:
    dino, sam = map(str, folders)
    usual = {"floor": 0.1, "relative": 0.1, "within": 0.9, "across": 0.9}
    return kind(checkpoint=dino, segmenter=sam, device="cpu", batch_size=3, side=SIDE, **{**usual, **settings})


@pytest.fixture(scope="module")
def reward_of(folders: tuple[Path, Path]) -> Counting:
    return counting(folders)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (32, 32)], ids=str)
@torch.no_grad()
@pytest.mark.slow
def test_boxes_are_those_that_transformers_finds(reward_of: Counting, shape: tuple[int, int]) -> None:
    """And the score of a name is the mean over its tokens, told apart here by the marks between names."""
    given, names = pictures(*shape, rows=2), ("Camel", "red fox")
    found = reward_of.networks.detect(given, names)
    network, words = reward_of.networks.detect.network, bert()
    limit = {"shortest_edge": SIDE, "longest_edge": round(SIDE * 1333 / 800)}
    seen = GroundingDinoImageProcessorPil(size=limit)(as_pictures(given), return_tensors="pt")
    ids = words(["camel. red fox."] * 2, return_tensors="pt").input_ids
    told = network(pixel_values=seen.pixel_values, pixel_mask=seen.pixel_mask, input_ids=ids)
    marks = (ids[0] == 1012).nonzero()[:, 0].tolist()
    assert len(marks) == 2
    chances = told.logits.sigmoid()
    by_name = torch.stack([chances[..., 1 : marks[0]].mean(-1), chances[..., marks[0] + 1 : marks[1]].mean(-1)], -1)
    best = torch.stack([chances[..., 1 : marks[0]].amax(-1), chances[..., marks[0] + 1 : marks[1]].amax(-1)], -1)
    x, y, wide, tall = told.pred_boxes.unbind(-1)
    corners = torch.stack([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2], -1)
    for row, boxes in enumerate(found):
        torch.testing.assert_close(boxes.scores, by_name[row].max(-1).values, atol=1e-4, rtol=1e-4)
        assert torch.equal(boxes.kinds, by_name[row].argmax(-1))
        peaks = best[row].gather(-1, boxes.kinds[:, None])[:, 0]
        torch.testing.assert_close(boxes.peaks, peaks, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(boxes.corners, corners[row], atol=1e-4, rtol=1e-4)
    assert {0, 1} == set(torch.cat([boxes.kinds for boxes in found]).tolist())


def test_tokens_of_names() -> None:
    text = bert()("ab. c def.", return_offsets_mapping=True)
    assert spans(["ab", "c def"], text.offset_mapping) == [[1, 2], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((512, 512), (800, 800)), ((768, 1024), (800, 1066)), ((300, 900), (444, 1332)), ((900, 300), (1332, 444))],
    ids=str,
)
def test_sides_that_the_detector_sees(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    """Worked out from its authors' rule: 800, at most 1333 for the longer one, other fractions cut off."""
    assert Shorter()(torch.zeros(1, 3, *shape), 800, 800, Bilinear(), (0, 0, 0)).shape[-2:] == expected


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (64, 64), (90, 50)], ids=str)
@torch.no_grad()
def test_masks_are_those_that_transformers_finds(reward_of: Counting, shape: tuple[int, int]) -> None:
    [picture] = pictures(*shape, rows=1)
    corners = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.3, 0.1, 0.9, 0.8], [0.0, 0.0, 1.0, 1.0]])
    masks = reward_of.networks.segment(picture, corners)
    tall, wide = shape
    pixels = (corners * torch.tensor([wide, tall, wide, tall])).tolist()
    square = {"height": SIDE, "width": SIDE}
    sized = SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size=square)
    prepare = SamProcessor(sized)  # type: ignore[no-untyped-call]
    seen = prepare(as_pictures(picture[None])[0], input_boxes=[pixels], return_tensors="pt")
    told = reward_of.networks.segment.network(
        pixel_values=seen.pixel_values, input_boxes=seen.input_boxes.float(), multimask_output=False
    )
    logits = told.pred_masks[0, :, 0]
    used = [round(side * 16 / max(shape)) for side in shape]
    assert masks.shape == (3, *used)
    agree = masks == (logits[:, : used[0], : used[1]] > 0)
    assert agree.float().mean() > 0.995
    assert 0 < masks.float().mean() < 1


class Found(GroundingDetector):
    """Two cats and a dog in every dark picture, and in bright ones a cat."""

    def __call__(self, pixels: Tensor, names: Sequence[str]) -> list[Boxes]:
        corners = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [0.8, 0.8, 1.0, 1.0]])
        kinds = torch.tensor([names.index(name) if name in names else 0 for name in ("cat", "cat", "dog")])
        scores = torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.2, 0.2]])
        of_pictures = [scores[int(picture.mean() > 0.5)] for picture in pixels]
        return [Boxes(corners, of_picture, kinds, of_picture) for of_picture in of_pictures]


class Boxed(Segmenter):
    """All of a box is its object."""

    def __call__(self, picture: Tensor, corners: Tensor) -> Tensor:
        x, y = torch.meshgrid(torch.arange(10) / 10, torch.arange(10) / 10, indexing="xy")
        left, top, right, bottom = (side[:, None, None] for side in corners.unbind(1))
        return (x >= left - 1e-6) & (x < right - 1e-6) & (y >= top - 1e-6) & (y < bottom - 1e-6)


@pytest.mark.parametrize("kind", [Counting, CountingAccuracy])
def test_rewards_of_counts(kind: type[Counting]) -> None:
    """Two cats and a dog in dark pictures, one cat in bright ones; other things are not there."""
    reward = kind(device="cpu")
    reward.__dict__["networks"] = CountingNetworks(Found(None, None), Boxed(None))
    dark, bright = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    cases = [
        (dark, "two cats and a dog", 0),
        (bright, "two cats and a dog", -2),
        (dark, Prompt("pets", {"cat": 5, "dog": 0}), -10),
        (bright, Prompt("pets", {"cat": 1, "dog": 0}), 0),
        (dark, Prompt("pets", {"dog": 1, "cat": 2}), 0),
    ]
    scores = reward.score(torch.stack([case[0] for case in cases]), [case[1] for case in cases])
    expected = [case[2] for case in cases]
    assert scores.tolist() == (expected if kind is Counting else [float(value == 0) for value in expected])
    assert scores.dtype == torch.float64


def confidence(score: float) -> float:
    """That of a box at the default thresholds, of which the best of its class scores 0.9."""
    odds = min(score / (1 - score) / (0.35 / 0.65), score / (1 - score) / (0.45 / 0.55))
    return odds**2 / (1 + odds**2)


def test_the_smooth_count_is_the_law_of_independent_boxes() -> None:
    """Boxes at 0.9 and 0.8 of a cat and 0.7 of a dog in dark pictures, at 0.9, 0.2 and 0.2 in bright ones."""
    reward = SmoothCounting(device="cpu")
    reward.__dict__["networks"] = CountingNetworks(Found(None, None), Boxed(None))
    a, b, c = confidence(0.9), confidence(0.8), confidence(0.2)
    dog, faint = (1 / (1 + ((1 - q) / q * 0.35 / 0.65) ** 2) for q in (0.7, 0.2))
    dark, bright = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    cases = [
        (dark, {"cat": 2, "dog": 1}, a * b * dog),
        (dark, {"cat": 2, "dog": 0}, a * b * (1 - dog)),
        (dark, {"cat": 3, "dog": 1}, a * b * FAINTEST * dog),
        (bright, {"cat": 2, "dog": 2}, a * c * faint * FAINTEST),
        (bright, {"cat": 1}, a * (1 - c) ** 2 + 2 * (1 - a) * c * (1 - c)),  # all are cats where nobody asks for dogs
    ]
    for picture, asked, probability in cases:
        score = float(reward.score(picture[None], [Prompt("pets", asked)]))
        assert score == pytest.approx(math.log(probability), rel=1e-5)


def test_the_surrogate_of_counting_has_its_settings_and_networks(reward_of: Counting) -> None:
    smooth = reward_of.own_surrogate
    assert isinstance(smooth, SmoothCounting)
    assert smooth is reward_of.own_surrogate
    assert smooth.networks is reward_of.networks
    assert (smooth.filter, smooth.side, smooth.batch_size) == (reward_of.filter, SIDE, 3)
    assert smooth.identity == reward_of.identity.replace("counting", "counting-smooth", 1)


def test_nothing_found_counts_as_nothing(folders: tuple[Path, Path]) -> None:
    strict = counting(folders, floor=1.0)
    assert strict.score(pictures(), [Prompt("", {"camel": 2, "fox": 3})] * 3).tolist() == [-13] * 3


def test_a_prompt_that_asks_for_nothing_says_what_to_do(reward_of: Counting) -> None:
    with pytest.raises(NothingAsked, match=r"'sunset' asks for no number.*--ask airplanes=6") as told:
        reward_of.score(pictures(), ["six camels", "sunset", "six camels"])
    assert isinstance(told.value, RollflowError)
    assert isinstance(told.value, ValueError)


def test_what_sets_it_apart() -> None:
    assert Counting().identity == "counting"
    assert CountingAccuracy(floor=0.2).identity == "counting-accuracy(floor=0.2)"
    tiny = Counting(checkpoint="IDEA-Research/grounding-dino-tiny", segmenter="facebook/sam-vit-base")
    assert tiny.identity == "counting(IDEA-Research/grounding-dino-tiny, segmenter=facebook/sam-vit-base)"
    with pytest.raises(ValueError, match="'relative' must be a finite number >= 0 and <= 1, not 2"):
        Counting(relative=2)


class TestCounting(PictureRewardSuite):
    @pytest.fixture(params=[Counting, SmoothCounting], ids=lambda kind: kind.name)
    def reward(self, request: pytest.FixtureRequest, reward_of: Counting) -> RewardModel | None:
        return reward_of if request.param is Counting else reward_of.own_surrogate

    @pytest.fixture
    def samples(self) -> Tensor:
        shade = torch.tensor([0.2, 1.0, 0.6, 0.9])[:, None, None, None]
        return pictures(40, 60, rows=4) * shade

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["six camels", "two foxes and three camels", "six camels", Prompt("a zoo", {"fox": 1})]

    @pytest.mark.parametrize("size", [(1, 2), (1, 100), (100, 1), (7, 5), (1, 101)], ids=str)
    def test_pictures_of_any_size_are_scored_or_refused(
        self, size: tuple[int, int], reward: RewardModel, prompts: Sequence[str]
    ) -> None:
        """No square: the tiny network sees one pixel of it at its coarsest level, and cannot normalise that."""
        super().test_pictures_of_any_size_are_scored_or_refused(size, reward, prompts)
