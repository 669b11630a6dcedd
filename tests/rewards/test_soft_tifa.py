"""Soft-TIFA: geometric means of what another reward says of several statements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import data
from rollflow.errors import BadSetting
from rollflow.models.scenes import parse
from rollflow.models.scenes.grammar import KINDS
from rollflow.prompts import Prompt, plural, singular
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.scenes.scenes import CaptionReward, CountReward
from rollflow.rewards.wrappers.soft_tifa import SoftTIFA, statement
from rollflow.testing import RewardSuite


class Told(RewardModel):
    """The first value of a sample to the power of the statement's number of words."""

    name = "told"
    description = "a probability"
    bounds = (0.0, 1.0)
    batch_size = 3

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0] ** torch.tensor([float(len(prompt.split())) for prompt in prompts])


def test_it_is_the_geometric_mean_over_the_parts_of_each_prompt() -> None:
    prompts = ["two cats and a dog", "sunset", Prompt("pets", {"cat": 3, "dog": 0, "red fox": 1})]
    reward = SoftTIFA(Told())
    assert [reward.asked_of(prompt) for prompt in prompts] == [
        ("two cats", "one dog", "two cats and a dog"),
        ("sunset",),
        ("three cats", "no dogs", "one red fox", "pets"),
    ]
    scores = reward.score(torch.tensor([[0.9], [0.8], [0.5]], dtype=torch.float64), prompts)
    exact = [0.9 ** ((2 + 2 + 5) / 3), 0.8, 0.5 ** ((2 + 2 + 3 + 1) / 4)]
    assert scores.tolist() == pytest.approx(exact, rel=1e-12)


def test_questions_of_ones_own_are_for_all_prompts() -> None:
    reward = REWARDS.make("soft-tifa(reward=caption, questions=two cats;one dog to the left of two cats)")
    assert isinstance(reward, SoftTIFA)
    assert reward.asked_of("four stars") == ("two cats", "one dog to the left of two cats")
    assert reward.identity == f"soft-tifa({CaptionReward().identity}, two cats; one dog to the left of two cats)"
    assert SoftTIFA(CaptionReward()).identity == f"soft-tifa({CaptionReward().identity})"


def test_a_part_that_is_surely_wrong_is_not_the_end() -> None:
    """Nothing is infinite, so that one more right part is still better."""
    [nothing] = SoftTIFA(Told(), ("a b",)).score(torch.zeros(1, 1, dtype=torch.float64), [""]).tolist()
    assert 0 < nothing < 1e-20
    assert math.isfinite(math.log(nothing))


def test_what_makes_no_sense() -> None:
    with pytest.raises(BadSetting, match="'soft-tifa' needs a reward from 0 to 1, such as vqascore, not 'count'"):
        SoftTIFA(CountReward())
    with pytest.raises(BadSetting, match="questions of soft-tifa are empty"):
        SoftTIFA(Told(), ())
    with pytest.raises(ValueError, match="kats"):
        SoftTIFA(CaptionReward()).check("two kats")


def test_things_are_counted_in_words() -> None:
    told = [statement(thing, count) for thing, count in (("fox", 2), ("cat", 1), ("wolf", 21), ("baby", 0))]
    assert told == ["two foxes", "one cat", "21 wolves", "no babies"]
    for kind, many in KINDS.items():
        assert (plural(kind), singular(plural(kind))) == (many, kind)


class TestSoftTIFA(RewardSuite):
    @pytest.fixture
    def reward(self) -> RewardModel:
        return SoftTIFA(CaptionReward())

    @pytest.fixture
    def samples(self) -> Tensor:
        rng = np.random.default_rng(0)
        scenes = ("two cats", "one dog to the left of two cars", "four stars")
        return data.pixels_of([data.render(parse(scene), rng) for scene in scenes]).float() / 255

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["two cats", "one dog to the left of two cars", "five stars"]
