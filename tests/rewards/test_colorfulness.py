"""Colourfulness: the formula by hand, gradients also where its roots are 0."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.picture_suite import PictureRewardSuite
from torch import Tensor

from rollflow.rewards.base import RewardModel
from rollflow.rewards.pixels.colorfulness import Colorfulness


def picture(*colours: tuple[float, float, float]) -> Tensor:
    """A picture (1, 3, 1, n) of pixels in [0, 1]."""
    return torch.tensor(colours, dtype=torch.float64).T[None, :, None, :]


def score(pixels: Tensor) -> Tensor:
    return Colorfulness().score(pixels, [""] * len(pixels))


class TestColorfulness(PictureRewardSuite):
    rounding = 0.1  # of 48 pixels, each up to half a level off; scores are 0 to 100

    @pytest.fixture
    def reward(self) -> RewardModel:
        return Colorfulness()

    @pytest.fixture
    def samples(self) -> Tensor:
        noise = torch.rand(4, 3, 6, 8, generator=torch.Generator().manual_seed(0))
        return 0.5 + torch.linspace(0, 1, 4).reshape(-1, 1, 1, 1) * (noise - 0.5)

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["noise"] * 4


def test_values_by_hand() -> None:
    red, blue, grey = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5)
    assert score(picture(grey, grey)).item() == 0
    plain = 0.3 * 255 * (1 + 0.25) ** 0.5  # rg = 255, yb = 127.5, no spread
    torch.testing.assert_close(score(picture(red, red)), torch.tensor([plain], dtype=torch.float64))
    # rg: 255 and 0; yb: 127.5 and -255; spreads 127.5 and 191.25, means 127.5 and -63.75
    both = 255 * ((0.5**2 + 0.75**2) ** 0.5 + 0.3 * (0.5**2 + 0.25**2) ** 0.5)
    torch.testing.assert_close(score(picture(red, blue)), torch.tensor([both], dtype=torch.float64))


def test_brightness_alone_is_no_colour() -> None:
    ramp = torch.linspace(0, 1, 12, dtype=torch.float64).reshape(1, 1, 3, 4).expand(1, 3, 3, 4)
    assert score(ramp).item() == 0


def test_gradients_are_those_of_finite_differences() -> None:
    pixels = torch.rand(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(score, (pixels,))


@pytest.mark.parametrize("colour", [(0.5, 0.5, 0.5), (0.9, 0.2, 0.1)], ids=["grey", "plain"])
def test_gradients_are_finite_where_a_root_is_zero(colour: tuple[float, float, float]) -> None:
    pixels = picture(*[colour] * 4).requires_grad_()
    [gradient] = torch.autograd.grad(score(pixels).sum(), pixels)
    assert gradient.isfinite().all()
    assert gradient.any() == (len(set(colour)) > 1)


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 8), (1, 8, 8), (3, 0, 8), (2, 5, 3, 8, 8), (2, 1, 8, 8), ()])
def test_shapes_that_are_no_pictures_do_not_fit(shape: tuple[int, ...]) -> None:
    assert "expected pictures (3, H, W) or films (F, 3, H, W)" in str(Colorfulness().unfit(shape))


@pytest.mark.parametrize("shape", [(3, 8, 9), (5, 3, 8, 9)])
def test_pictures_and_films_fit(shape: tuple[int, ...]) -> None:
    assert Colorfulness().unfit(shape) is None
