"""Sizes of JPEG files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from support.picture_suite import PictureRewardSuite
from torch import Tensor

from rollflow.rewards.base import RewardModel
from rollflow.rewards.pixels.jpeg import JpegCompressibility, JpegIncompressibility


def pictures() -> Tensor:
    """Noise that gets stronger from row to row."""
    noise = torch.rand(4, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    return 0.5 + torch.linspace(0, 1, 4).reshape(-1, 1, 1, 1) * (noise - 0.5)


class TestJpeg(PictureRewardSuite):
    @pytest.fixture(params=[JpegCompressibility, JpegIncompressibility], ids=lambda kind: kind.name)
    def reward(self, request: pytest.FixtureRequest) -> RewardModel:
        kind: type[RewardModel] = request.param
        return kind()

    @pytest.fixture
    def samples(self) -> Tensor:
        return pictures()

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["noise"] * 4


def test_the_reward_is_the_size_of_the_file_in_thousands_of_bytes() -> None:
    given = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 40, 24), dtype=np.uint8))
    sizes = []
    for row in given:
        file = io.BytesIO()
        Image.fromarray(row.permute(1, 2, 0).numpy()).save(file, format="JPEG", quality=95)
        sizes.append(len(file.getvalue()))
    assert (JpegIncompressibility().score(given / 255, ["", ""]) * 1000).round().tolist() == sizes
    assert (JpegCompressibility().score(given / 255, ["", ""]) * -1000).round().tolist() == sizes


def test_what_is_harder_to_compress_is_larger() -> None:
    sizes = JpegIncompressibility().score(pictures(), [""] * 4)
    assert (sizes.diff() > 0.05).all()


def test_a_film_is_the_mean_of_its_frames() -> None:
    still = JpegCompressibility().score(pictures(), [""] * 4)
    film = JpegCompressibility().score(pictures().reshape(2, 2, 3, 24, 32), ["", ""])
    assert torch.equal(film, still.reshape(2, 2).mean(1))
