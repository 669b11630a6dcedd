"""Preprocessing against PIL, hand-computed values, and the processors of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rollflow.files.pictures import as_bytes, as_pictures, from_pictures
from rollflow.rewards.pretrained.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    Bicubic,
    Bilinear,
    Crop,
    Filter,
    Letterbox,
    Pad,
    Preprocess,
    Stretch,
    TensorBicubic,
)


def pixels(height: int, width: int, rows: int = 2) -> torch.Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def test_bytes_are_rounded_and_come_back() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 254.4 / 255, 1.0, 1.3])
    [picture] = as_pictures(values.expand(1, 3, 1, 7))
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0, 0, 1, 254, 255, 255]
    assert torch.equal(from_pictures([picture]), from_pictures(as_pictures(from_pictures([picture]))))


@pytest.mark.parametrize("by", [Bicubic(), Bilinear()], ids=lambda by: type(by).__name__)
@pytest.mark.parametrize("size", [(9, 14), (40, 33)], ids=["smaller", "larger"])
def test_resizing_is_that_of_pil_and_gradients_follow_within_a_byte(by: Filter, size: tuple[int, int]) -> None:
    given = pixels(24, 20)
    resized = by.resize(given, *size)
    for row, picture in zip(resized, as_pictures(given), strict=True):
        theirs = np.asarray(picture.resize((size[1], size[0]), by.of_pil))
        assert np.array_equal((row * 255).round().byte().permute(1, 2, 0).numpy(), theirs)
    smooth = by.resize(given.clone().requires_grad_(), *size)
    assert float((smooth.detach() - resized).abs().max()) < 2.5 / 255
    assert smooth.requires_grad


def test_a_crop_takes_the_middle_of_the_longer_side() -> None:
    wide = pixels(8, 20)
    assert torch.allclose(Crop()(wide, 8, 8, Bicubic(), (0, 0, 0)), wide[..., 6:14], atol=0.5 / 255 + 1e-6)
    tall = pixels(20, 8)
    assert torch.allclose(Crop()(tall, 8, 8, Bicubic(), (0, 0, 0)), tall[..., 6:14, :], atol=0.5 / 255 + 1e-6)


def test_a_pad_surrounds_the_picture() -> None:
    wide = pixels(4, 8)
    padded = Pad()(wide, 8, 8, Bicubic(), (0.2, 0.4, 0.6))
    assert torch.allclose(padded[..., 2:6, :], wide, atol=0.5 / 255 + 1e-6)
    assert torch.equal(padded[:, :, :2].amax((0, 2, 3)), torch.tensor([0.2, 0.4, 0.6]))


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((4, 8), (2, 6, 0, 8)),
        ((9, 4), (0, 8, 2, 6)),  # 3.6 pixels wide, so 4
        ((24, 15), (0, 8, 1, 6)),  # 5 wide: the odd one of three is after it
    ],
    ids=str,
)
def test_a_letterbox_keeps_all_of_the_picture(shape: tuple[int, int], place: tuple[int, int, int, int]) -> None:
    given = pixels(*shape)
    top, bottom, left, right = place
    boxed = Letterbox()(given, 8, 8, Bicubic(), (0.2, 0.4, 0.6))
    inside = boxed[..., top:bottom, left:right]
    assert torch.equal(inside, Bicubic().resize(given, bottom - top, right - left))
    boxed[..., top:bottom, left:right] = torch.tensor([0.2, 0.4, 0.6]).reshape(3, 1, 1)
    assert torch.equal(boxed.amax((0, 2, 3)), torch.tensor([0.2, 0.4, 0.6]))
    assert torch.equal(boxed.amin((0, 2, 3)), torch.tensor([0.2, 0.4, 0.6]))


def test_tensors_are_resized_without_rounding_or_clamping() -> None:
    edge = torch.cat([torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)], -1)
    larger = TensorBicubic().resize(edge, 8, 40)
    assert float(larger.max()) > 1 > 0 > float(larger.min())
    assert torch.allclose(larger.clamp(0, 1), Bicubic().resize(edge, 8, 40), atol=1 / 255)
    given = pixels(24, 20)
    smaller = TensorBicubic().resize(given, 9, 14)
    assert float((smaller - Bicubic().resize(given, 9, 14)).abs().max()) < 1.5 / 255
    rounded = as_bytes(given).float() / 255
    assert torch.equal(smaller, TensorBicubic().resize(rounded.requires_grad_(), 9, 14))
    assert not torch.allclose(smaller * 255, (smaller * 255).round(), atol=0.1)


def test_whitening_by_hand() -> None:
    grey = Preprocess(4, Stretch())(torch.full((1, 3, 4, 4), 102 / 255))
    for channel, mean, std in zip(grey[0], CLIP_MEAN, CLIP_STD, strict=True):
        assert torch.allclose(channel, torch.tensor((102 / 255 - mean) / std))


@pytest.mark.parametrize("shape", [(31, 31), (40, 30), (30, 42)], ids=str)
def test_clip_as_transformers_prepares_it(shape: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessorPil

    side = 16
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    given = pixels(*shape)
    theirs = torch.from_numpy(np.stack(processor(as_pictures(given), return_tensors="np")["pixel_values"]))
    ours = Preprocess(side)(given)
    assert float((ours - theirs).abs().max()) < 1e-5


def test_gradients_are_those_of_the_values() -> None:
    given = pixels(12, 12, 1).double().float()
    prepare = Preprocess(5)
    weights = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))

    def value(x: torch.Tensor) -> torch.Tensor:
        return (prepare(x) * weights).sum()

    leaf = given.clone().requires_grad_()
    [gradient] = torch.autograd.grad(value(leaf), leaf)
    direction = torch.randn(given.shape, generator=torch.Generator().manual_seed(2))
    ends = [float(value((given + h * direction).requires_grad_()).detach()) for h in (1e-2, -1e-2)]
    inside = (Bicubic().resize(given.clone().requires_grad_(), 5, 5) < 1).all()
    assert inside
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float((gradient * direction).sum()), rel=1e-2)


def test_a_picture_of_the_right_size_is_only_rounded() -> None:
    given = pixels(6, 6, 1)
    assert np.array_equal(
        np.asarray(Image.fromarray((Bicubic().resize(given, 6, 6)[0] * 255).byte().permute(1, 2, 0).numpy())),
        np.asarray(as_pictures(given)[0]),
    )
