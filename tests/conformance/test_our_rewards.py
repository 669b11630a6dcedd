"""The library's own rewards through the suite that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from support.picture_suite import PictureRewardSuite
from torch import Tensor

import data
from rollflow.models.scenes import parse
from rollflow.rewards.base import RewardModel
from rollflow.rewards.composition import GroupLikelihood, WrongGroups
from rollflow.rewards.scenes.scenes import CaptionJudgeReward, CaptionReward, CountReward, JudgeReward
from rollflow.rewards.scenes.smooth_count import SmoothCountReward
from rollflow.rewards.toy import ToyReward
from rollflow.testing import RewardSuite

loaded = cache(lambda kind: kind())
SCENES = ("two cats", "three cats", "one dog to the left of two cars", "two dogs to the right of one car", "four stars")


class TestToy(RewardSuite):
    @pytest.fixture(params=[None, torch.tensor([0.5, -1.0])], ids=["coordinate", "distance"])
    def reward(self, request: pytest.FixtureRequest) -> ToyReward:
        return ToyReward(request.param)

    @pytest.fixture
    def samples(self) -> Tensor:
        return torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["left", "right", "left", "right"]


class TestComposition(RewardSuite):
    @pytest.fixture(params=["wrong", "likelihood"])
    def reward(self, request: pytest.FixtureRequest) -> RewardModel:
        means = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
        return WrongGroups(means) if request.param == "wrong" else GroupLikelihood(means, 0.3)

    @pytest.fixture
    def samples(self) -> Tensor:
        return torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["one", "two", "one", "two"]


class TestScenes(PictureRewardSuite):
    """Pictures of other scenes than those asked for, and one that is right."""

    @pytest.fixture(
        params=[CountReward, SmoothCountReward, CaptionReward, JudgeReward, CaptionJudgeReward],
        ids=lambda kind: kind.name,
    )
    def reward(self, request: pytest.FixtureRequest) -> Any:
        return loaded(request.param)

    @pytest.fixture
    def samples(self) -> Tensor:
        rng = np.random.default_rng(0)
        pictures = [data.render(parse(scene), rng) for scene in (SCENES[0], *SCENES[:-1])]
        return data.pixels_of(pictures).float() / 255

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return SCENES
