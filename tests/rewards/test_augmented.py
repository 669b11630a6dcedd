"""Rewards over views of a picture, and lower confidence bounds, by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import data
from rollflow.errors import BadSetting
from rollflow.models.scenes import parse
from rollflow.prompts import Prompt
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.components import components
from rollflow.rewards.mixing import Minimum, Pessimistic, RankAverage, WeightedSum
from rollflow.rewards.pessimism import bounds_of, pessimistic
from rollflow.rewards.scenes.scenes import CaptionJudgeReward, CaptionReward, CountReward
from rollflow.rewards.wrappers.augmented import Augmented, mirrored
from rollflow.testing import RewardSuite


class Corner(RewardModel):
    """The red at the top left corner, plus 100 if the prompt says "left"; it remembers the prompts of its last call."""

    name = "corner"
    description = "a pixel"
    differentiable = True
    batch_size = 3
    bounds = (0.0, 101.0)

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.prompts += prompts
        said = torch.tensor([100.0 * ("left" in prompt) for prompt in prompts])
        return samples.flatten(1, -3)[:, 0, 0, 0].double() + said


PIXELS = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4).expand(1, 3, 3, 4) / 100
"""Rows 1 to 4, 5 to 8 and 9 to 12, in hundredths."""


@pytest.mark.parametrize(
    ("settings", "corners"),
    [
        ({"shift": 0, "mirror": False}, [1]),
        ({"shift": 0, "mirror": True}, [1, 4]),
        ({"shift": 1, "mirror": False}, [1, 1, 2, 1, 5]),
        ({"shift": 2, "mirror": False}, [1, 1, 3, 1, 9]),
        ({"shift": 1, "mirror": True}, [1, 1, 2, 1, 5, 4, 3, 4, 4, 8]),
    ],
)
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("film", [False, True])
def test_views_are_shifted_and_mirrored(
    settings: dict[str, Any], corners: list[int], penalty: float, film: bool
) -> None:
    reward = Augmented(Corner(), penalty=penalty, **settings)
    samples = PIXELS[:, None].expand(1, 2, 3, 3, 4) if film else PIXELS
    assert reward.count == len(corners)
    expected = (np.mean(corners) - penalty * np.std(corners)) / 100
    assert reward.score(samples, ["a dog"]).tolist() == pytest.approx([expected], rel=1e-6, abs=1e-8)


def test_each_sample_has_its_own_views() -> None:
    reward = Augmented(Corner(), shift=1, penalty=0.5)
    samples = torch.cat([PIXELS, 2 * PIXELS, 1 - PIXELS])
    alone = [float(reward.score(samples[i : i + 1], ["a dog"])) for i in range(3)]
    assert reward.score(samples, ["a dog"] * 3).tolist() == pytest.approx(alone, rel=1e-12)


def test_a_mirrored_view_has_the_mirrored_prompt() -> None:
    prompt = "a LEFT shoe to the Left of a cat, right of a dog, uprightly"
    assert mirrored(prompt) == "a RIGHT shoe to the Right of a cat, left of a dog, uprightly"
    assert mirrored(mirrored(prompt)) == prompt
    given = mirrored(Prompt("pets on the left", {"cat": 2}))
    assert isinstance(given, Prompt)
    assert (str(given), given.ask) == ("pets on the right", {"cat": 2})
    corner = Corner()
    assert Augmented(corner, shift=0).score(PIXELS, ["left"]).tolist() == pytest.approx([(100.01 + 0.04) / 2])
    assert corner.prompts == ["left", "right"]


def test_a_scene_and_its_mirror_image_are_worth_the_same() -> None:
    """For a relation, too, since it is mirrored with the picture."""
    scene = data.render(parse("one dog to the left of two cars"), np.random.default_rng(2))
    pixels = data.pixels_of([scene]).float() / 255
    prompt, other = "one dog to the left of two cars", "one dog to the right of two cars"
    plain, reward = CaptionReward(), Augmented(CaptionReward(), shift=0)
    there, back = reward.score(pixels, [prompt]), reward.score(pixels.flip(-1), [other])
    assert torch.allclose(there, back, atol=1e-6)
    both = plain.score(pixels, [prompt]) + plain.score(pixels.flip(-1), [other])
    assert float(there) == pytest.approx(float(both) / 2)
    assert float(plain.score(pixels.flip(-1), [prompt])) < 0.2 < float(there)


def test_what_it_declares_is_that_of_its_reward() -> None:
    reward = Augmented(CountReward())
    assert (reward.held_out, reward.differentiable, reward.structured) == (("judge",), False, False)
    assert Augmented(Corner()).differentiable
    assert reward.unfit((3, 30, 30)) == CountReward().unfit((3, 30, 30))
    assert reward.unfit((7,)) is not None
    assert components(reward) == [reward.reward]
    assert reward.identity == f"augmented({reward.reward.identity}, 2, True, 0.0)"
    with pytest.raises(ValueError, match="kats"):
        reward.check("two kats")
    made = REWARDS.make("augmented(reward=minimum(parts=caption;caption-judge), shift=1, mirror=false, penalty=0.5)")
    assert isinstance(made, Augmented)
    assert (made.shift, made.mirror, made.penalty, made.reward.name) == (1, False, 0.5, "minimum")
    with pytest.raises(BadSetting, match="'rank-average' depends on earlier scores"):
        Augmented(RankAverage((Corner(), CountReward())))
    refused: tuple[dict[str, Any], ...] = ({"shift": -1}, {"mirror": 1}, {"penalty": -0.1})
    for wrong in refused:
        with pytest.raises(BadSetting, match=next(iter(wrong))):
            Augmented(Corner(), **wrong)


@pytest.mark.parametrize("penalty", [0.0, 0.3, 1.0, 4.0])
def test_bounds_are_reached_and_never_passed(penalty: float) -> None:
    low, high = bounds_of(-1.0, 2.0, 5, penalty)
    corners = torch.tensor([*itertools.product((-1.0, 2.0), repeat=5)], dtype=torch.float64)
    reached = pessimistic(corners, penalty)
    assert (float(reached.min()), float(reached.max())) == pytest.approx((low, high))
    inside = torch.rand(500, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 - 1
    assert bool((pessimistic(inside, penalty) >= low).all())
    assert bounds_of(-math.inf, 0.0, 5, penalty) == (-math.inf, 0.0)
    assert Augmented(Corner(), penalty=penalty).bounds == bounds_of(0.0, 101.0, 10, penalty)


def test_the_lower_bound_of_two_is_the_smaller() -> None:
    """And of several, the mean less so many deviations; with equal scores its gradient is that of the mean."""
    scores = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(pessimistic(scores, 1.0), scores.min(1).values)
    assert torch.allclose(pessimistic(scores, 0.0), scores.mean(1))
    assert float(pessimistic(torch.tensor([1.0, 2.0, 6.0]), 0.5)) == pytest.approx(3 - 0.5 * math.sqrt(14 / 3))
    equal = torch.full((1, 4), 3.0, dtype=torch.float64, requires_grad=True)
    [gradient] = torch.autograd.grad(pessimistic(equal, 2.0).sum(), equal)
    assert gradient.tolist() == [[0.25] * 4]
    unequal = torch.tensor([[0.0, 1.0, 5.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pessimistic(x, 0.7), unequal)


def test_detectors_of_scenes_share_a_scale() -> None:
    """Both are calibrated, so that their probabilities can be averaged and compared as they are."""
    rng = np.random.default_rng(4)
    scenes = [data.render(parse(caption), rng) for caption in ("two cats", "two cats", "three dogs", "one star")]
    pixels, prompts = data.pixels_of(scenes).float() / 255, ["two cats", "three cats", "three dogs", "two stars"]
    parts = (CaptionReward(), CaptionJudgeReward())
    a, b = (part.score(pixels, prompts) for part in parts)
    assert float((a - b).abs().max()) < 0.3
    assert torch.allclose(Pessimistic(parts).score(pixels, prompts), torch.minimum(a, b))
    assert torch.equal(Minimum(parts).score(pixels, prompts), torch.minimum(a, b))
    assert torch.allclose(WeightedSum(parts, (0.5, 0.5)).score(pixels, prompts), (a + b) / 2)
    three_deviations = (a + b) / 2 - 3 * (a - b).abs() / 2
    assert torch.allclose(Pessimistic(parts, 3.0).score(pixels, prompts), three_deviations)


class TestAugmented(RewardSuite):
    @pytest.fixture
    def reward(self) -> RewardModel:
        return Augmented(CaptionReward(), shift=1, penalty=0.5)

    @pytest.fixture
    def samples(self) -> Tensor:
        rng = np.random.default_rng(0)
        scenes = ("two cats", "one dog to the left of two cars", "four stars")
        return data.pixels_of([data.render(parse(scene), rng) for scene in scenes]).float() / 255

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["two cats", "one dog to the left of two cars", "five stars"]


class TestPessimistic(TestAugmented):
    @pytest.fixture
    def reward(self) -> RewardModel:
        return Pessimistic((CaptionReward(), CaptionJudgeReward()), 0.5)
