"""The library's own models through the suite that is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from rollflow.dynamics.interpolants import VP, Cosine, Linear
from rollflow.models import MODELS
from rollflow.models.base import FlowModel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.models.mixture.product import ProductModel, simplex
from rollflow.testing import ModelSuite

loaded = cache(lambda kind: kind())


class TestToy(ModelSuite):
    @pytest.fixture(params=[Linear(), VP(), Cosine()], ids=str)
    def model(self, request: pytest.FixtureRequest) -> ToyModel:
        means, stds = torch.tensor([[-1.0, -1.0], [1.0, 1.5]]), torch.tensor([0.3, 0.5])
        return ToyModel(
            {
                name: GaussianMixture(torch.tensor(weights), means, stds, request.param)
                for name, weights in (("left", [0.9, 0.1]), ("right", [0.2, 0.8]))
            }
        )

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return "left", "right"

    @pytest.fixture
    def bad_prompt(self) -> str:
        return "nowhere"


class TestProduct(ModelSuite):
    @pytest.fixture
    def model(self) -> ProductModel:
        stds = torch.tensor([0.3, 0.2, 0.1])
        return ProductModel(GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), simplex(3, 2), stds), 4)

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return "one", "two"

    def test_the_prompt_matters(self, model: FlowModel, prompts: Sequence[str]) -> None:
        """It has one law, whatever the prompt."""
        assert [model.encode(prompt) for prompt in prompts] == [None, None]


class TestScenes(ModelSuite):
    @pytest.fixture(params=MODELS.values(), ids=list(MODELS))
    def model(self, request: pytest.FixtureRequest) -> Any:
        return loaded(request.param)

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return "three cats on grass background", "one car above two dogs on night background"

    @pytest.fixture
    def bad_prompt(self) -> str:
        return "three zebras"
