"""The published weights, where the hub's cache holds them; no scores of single pictures are published to hold to."""

from __future__ import annotations

import pytest
import torch
from hub_cache import cached, weights_cached

from rollflow.rewards.vqa.instructblip import InstructBlipVQAScore
from rollflow.rewards.vqa.qwen_vl import QwenVQAScore
from rollflow.rewards.vqa.visual_question import VisualQuestion
from rollflow.rewards.vqa.vqascore import VQAScore

RED, BLUE = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])
REWARDS = [VQAScore(size="xl"), VQAScore(), InstructBlipVQAScore(), QwenVQAScore()]


@pytest.mark.slow
@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.checkpoint)
def test_a_colour_is_told_from_another(reward: VisualQuestion) -> None:
    """What any right assembly of these networks does, and a wrong one (a layer, a template, a tied weight) does not."""
    networks, words = [reward.checkpoint], reward.checkpoint
    if isinstance(reward, VQAScore):
        networks, words = [*networks, "openai/clip-vit-large-patch14-336"], reward.vocabulary
    for network in networks:
        if not weights_cached(network):
            pytest.skip(f"the weights of {network} are not in the hub's cache")
    if cached(words, "tokenizer_config.json") is None:
        pytest.skip(f"the tokenizer of {words} is not in the hub's cache")
    discs = (torch.linspace(-1, 1, 448)[:, None] ** 2 + torch.linspace(-1, 1, 448) ** 2 < 0.4).float()
    pixels = torch.stack([1 - discs * (1 - colour[:, None, None]) for colour in (RED, BLUE)])
    right = reward.score(pixels, ["a red circle", "a blue circle"])
    wrong = reward.score(pixels, ["a blue circle", "a red circle"])
    assert (right > wrong + 0.2).all()
