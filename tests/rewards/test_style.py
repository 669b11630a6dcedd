"""Style on a tiny CLIP, by the hidden states that transformers' whole network tells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_clip
import torch
from PIL import Image
from support.picture_suite import PictureRewardSuite
from torch import Tensor
from transformers import CLIPModel

from rollflow.errors import RollflowError
from rollflow.files.pictures import as_pictures, from_pictures
from rollflow.rewards.clip.style import Style
from rollflow.rewards.pretrained.preprocessing import CLIP_MEAN, CLIP_STD

Tiny = tuple[CLIPModel, Image.Image, Style]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("style")
    model = tiny_clip.saved(folder)
    [reference] = as_pictures(tiny_clip.pictures(1, 50, 70))
    reference.save(folder / "reference.png")
    return model, reference, Style(str(folder / "reference.png"), str(folder), device="cpu", batch_size=6)


def gram(model: CLIPModel, picture: Image.Image) -> Tensor:
    pixels = from_pictures([picture.resize((224, 224), Image.Resampling.BICUBIC)])
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        states = model.vision_model((pixels - mean) / std, output_hidden_states=True).hidden_states
    assert len(states) == 5  # before the four blocks, and after each
    features = states[3][0, 1:]
    return torch.einsum("pd,pe->de", features, features)


def test_scores_are_distances_of_gram_matrices(tiny: Tiny) -> None:
    model, reference, reward = tiny
    pixels = tiny_clip.pictures()
    wanted = gram(model, reference)
    expected = [-(gram(model, picture) - wanted).square().sum().sqrt() for picture in as_pictures(pixels)]
    torch.testing.assert_close(reward.score(pixels, ["what"] * 4), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_the_reference_is_its_own_best_match(tiny: Tiny) -> None:
    _, reference, reward = tiny
    scores = reward.score(torch.cat([from_pictures([reference])] * 2), ["a", "b"])
    assert scores.tolist() == [0.0, 0.0] or float(scores.abs().max()) < 1e-3
    assert float(reward.score(tiny_clip.pictures(), ["a"] * 4).max()) < -0.1


def test_gradients(tiny: Tiny) -> None:
    tiny_clip.assert_gradient_is_the_slope(tiny[-1], tiny_clip.pictures(2), ["a cat", "one dog"])


def test_the_reference_is_part_of_what_it_is_and_must_be_there(tiny: Tiny, tmp_path: Path) -> None:
    *_, reward = tiny
    copied, other = tmp_path / "copy.png", tmp_path / "other.png"
    copied.write_bytes(Path(reward.reference).read_bytes())
    Image.new("RGB", (8, 8), "red").save(other)
    identities = [Style(str(path), reward.checkpoint).identity for path in (copied, other)]
    assert reward.identity == identities[0] != identities[1]
    with pytest.raises(RollflowError, match=r"none was given; give style\(reference=PATH\)"):
        Style()
    with pytest.raises(RollflowError, match=r"there is no file 'nowhere\.png'"):
        Style("nowhere.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(RollflowError, match="reward 'style' cannot load"):
        Style(str(tmp_path / "text.png"), reward.checkpoint, device="cpu").load()


class TestSuite(PictureRewardSuite):
    @pytest.fixture
    def reward(self, tiny: Tiny) -> Style:
        return tiny[-1]

    @pytest.fixture
    def samples(self) -> Tensor:
        return tiny_clip.pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return tiny_clip.PROMPTS


def test_a_reference_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reference.png").touch()
    os.truncate(tmp_path / "reference.png", 1 << 40)
    with pytest.raises(RollflowError, match=r"reference of reward 'style' cannot be read: expected at most .* bytes"):
        Style(str(tmp_path / "reference.png"))
