"""PickScore on a tiny CLIP, by transformers' whole network and its processor."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny_clip
import torch
from support.picture_suite import PictureRewardSuite
from torch import Tensor
from transformers import CLIPModel

from rollflow.rewards.clip.pickscore import PickScore

Tiny = tuple[CLIPModel, PickScore]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The network in one folder, what it was tuned from in another."""
    checkpoint, base = (tmp_path_factory.mktemp(name) for name in ("picked", "base"))
    model = tiny_clip.clip(seed=1)
    model.save_pretrained(checkpoint)
    tiny_clip.saved(base, seed=2)
    return model, PickScore(str(checkpoint), str(base), device="cpu")


def test_scores_are_those_of_the_formula(tiny: Tiny) -> None:
    model, reward = tiny
    pixels, prompts = tiny_clip.pictures(), list(tiny_clip.PROMPTS)
    assert float(model.logit_scale.detach().exp()) != pytest.approx(1, abs=0.01)
    expected = model.logit_scale.detach().exp() * tiny_clip.cosines(model, pixels, prompts)
    torch.testing.assert_close(reward.score(pixels, prompts), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(224, 227), (231, 224), (40, 31), (500, 333)], ids=str)
def test_pictures_are_cut_as_the_processor_cuts_them(tiny: Tiny, shape: tuple[int, int]) -> None:
    """An odd number of pixels too many, too."""
    pixels = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(tiny[1].prepared(pixels), tiny_clip.processed(pixels), atol=1e-5, rtol=0)


def test_gradients(tiny: Tiny) -> None:
    tiny_clip.assert_gradient_is_the_slope(tiny[1], tiny_clip.pictures(2), ["a cat", "one dog"])


def test_the_base_is_part_of_what_it_is(tiny: Tiny) -> None:
    assert PickScore(device="cpu").identity == "pickscore"
    assert PickScore("mine", "theirs", device="cpu").identity == "pickscore(mine, base=theirs)"


def test_its_range_is_that_of_the_scaled_cosine(tiny: Tiny) -> None:
    model, reward = tiny
    reward.load()
    most = float(model.logit_scale.detach().exp())
    assert reward.bounds == pytest.approx((-most, most))


class TestSuite(PictureRewardSuite):
    @pytest.fixture
    def reward(self, tiny: Tiny) -> PickScore:
        return tiny[1]

    @pytest.fixture
    def samples(self) -> Tensor:
        return tiny_clip.pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return tiny_clip.PROMPTS
