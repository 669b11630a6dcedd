"""CLIPScore on a tiny CLIP, by transformers' whole network and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch
from support.picture_suite import PictureRewardSuite
from torch import Tensor, nn
from transformers import CLIPModel

from rollflow.errors import RollflowError
from rollflow.rewards.clip.clipscore import CLIPScore
from rollflow.rewards.pretrained import text_cache

Tiny = tuple[CLIPModel, CLIPScore]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("clip")
    return tiny_clip.saved(folder, seed=3), CLIPScore(str(folder), device="cpu", batch_size=6)


def test_scores_are_those_of_the_formula(tiny: Tiny) -> None:
    model, reward = tiny
    pixels, prompts = tiny_clip.pictures(), list(tiny_clip.PROMPTS)
    told = ["A photo depicts " + prompt for prompt in prompts]
    expected = 2.5 * tiny_clip.cosines(model, pixels, told)
    assert expected.min() < 0 < expected.max()
    scores = reward.score(pixels, prompts)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected.clamp_min(0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, 2.5 * tiny_clip.cosines(model, pixels, prompts), atol=1e-3)


def test_long_prompts_are_cut_with_an_end(tiny: Tiny) -> None:
    """77 tokens: a start, 75 of the text, an end; what comes later makes no difference."""
    model, reward = tiny
    pixels = tiny_clip.pictures(1)
    expected = 2.5 * tiny_clip.cosines(model, pixels, ["A photo depicts " + tiny_clip.LONG]).clamp_min(0)
    torch.testing.assert_close(reward.score(pixels, [tiny_clip.LONG]), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(reward.score(pixels, [tiny_clip.LONG]), reward.score(pixels, [tiny_clip.LONG + "and a dog"]))
    kept = reward.networks.tokenizer("A photo depicts " + tiny_clip.LONG, truncation=True, max_length=77)["input_ids"]
    assert len(kept) == 77
    assert kept[-1] == len(tiny_clip.VOCABULARY) - 1


def counted_passes(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every forward pass of a network from now on."""
    passes: list[dict[str, Any]] = []
    forward = network.forward

    def counted(**given: Any) -> Any:
        passes.append(given)
        return forward(**given)

    monkeypatch.setattr(network, "forward", counted)
    return passes


def test_a_prompt_is_embedded_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    _, reward = tiny
    passes = counted_passes(reward.networks.model.text_model, monkeypatch)
    for _ in range(2):
        reward.score(tiny_clip.pictures(3), ["new", "newer", "new"])
    assert len(passes) == 2


@pytest.mark.slow
def test_embeddings_of_the_last_prompts_are_kept(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "KEPT", 2)
    reward = CLIPScore(tiny[1].checkpoint, device="cpu")
    passes = counted_passes(reward.networks.model.text_model, monkeypatch)
    for prompts in (["a", "b"], ["a", "c"], ["a", "b"]):
        reward.score(tiny_clip.pictures(2), prompts)
    assert len(passes) == 4


def test_gradients(tiny: Tiny) -> None:
    _, reward = tiny
    pixels, prompts = tiny_clip.pictures(), list(tiny_clip.PROMPTS)
    rising = (reward.score(pixels, prompts) > 0).tolist()
    rows = [i for i, above in enumerate(rising) if above]
    tiny_clip.assert_gradient_is_the_slope(reward, pixels[rows], [prompts[i] for i in rows])


def test_films_and_other_dtypes(tiny: Tiny) -> None:
    _, reward = tiny
    film = tiny_clip.pictures(6).unflatten(0, (2, 3))  # type: ignore[no-untyped-call]
    frames = reward.score(film.flatten(0, 1), ["a cat"] * 3 + ["one dog"] * 3)
    torch.testing.assert_close(reward.score(film, ["a cat", "one dog"]), frames.reshape(2, 3).mean(1))
    for pixels in (film[0].double(), film[0].double().requires_grad_()):
        assert reward.score(pixels, ["a cat"] * 3).dtype == torch.float32


def test_a_missing_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RollflowError, match=r"reward 'clipscore' cannot load .*checkpoint=") as told:
        CLIPScore(str(tmp_path), device="cpu").load()
    assert "\n" not in str(told.value)


class TestSuite(PictureRewardSuite):
    @pytest.fixture
    def reward(self, tiny: Tiny) -> CLIPScore:
        return tiny[1]

    @pytest.fixture
    def samples(self) -> Tensor:
        return tiny_clip.pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return tiny_clip.PROMPTS
