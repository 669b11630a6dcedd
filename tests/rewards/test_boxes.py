"""The filter of boxes, on boxes and masks made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow.rewards.counting.boxes import Boxes, BoxFilter

CAT, DOG = 0, 1


def boxes(
    *given: tuple[int, float], peaks: list[float] | None = None, corners: list[list[float]] | None = None
) -> Boxes:
    """Of (class, score), small, apart and of one word each unless said otherwise."""
    kinds, scores = zip(*given, strict=True) if given else ((), ())
    places = [[i / 10, 0, i / 10 + 0.1, 0.1] for i in range(len(given))] if corners is None else corners
    best = torch.tensor(scores if peaks is None else peaks)
    return Boxes(torch.tensor(places).reshape(-1, 4), torch.tensor(scores), torch.tensor(kinds, dtype=torch.long), best)


def strips(*spans: tuple[int, int]) -> Tensor:
    """Masks of 1 x 100 pixels, each from one pixel to another."""
    masks = torch.zeros(len(spans), 1, 100, dtype=torch.bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[:, start:end] = True
    return masks


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        ([(CAT, 0.9)], [True]),
        ([(CAT, 0.34)], [False]),
        ([(CAT, 0.36), (CAT, 0.35)], [True, True]),
        ([(CAT, 0.9), (CAT, 0.46), (CAT, 0.44)], [True, True, False]),
        ([(CAT, 0.9), (DOG, 0.44)], [True, True]),
        ([(DOG, 0.44), (CAT, 0.9), (DOG, 0.36), (CAT, 0.4)], [True, True, True, False]),
        ([(CAT, 0.1), (DOG, 0.2)], [False, False]),
    ],
    ids=["none", "one", "floor", "all", "relative", "classes-apart", "mixed", "nothing-good"],
)
def test_thresholds(given: list[tuple[int, float]], kept: list[bool]) -> None:
    """An absolute floor, and half of the best of the class itself."""
    assert BoxFilter().promising(boxes(*given)).tolist() == kept


def test_the_floor_is_held_against_the_best_word() -> None:
    """Each by itself may fail the other's; a share of the best is one of scores."""
    cats = [(CAT, 0.3), (CAT, 0.34), (CAT, 0.14), (CAT, 0.2)]
    assert BoxFilter().promising(boxes(*cats, peaks=[0.5, 0.34, 0.6, 0.36])).tolist() == [True, False, False, True]


SMALL, LARGE, BEYOND = [0.1, 0.1, 0.3, 0.4], [0.02, 0.02, 0.99, 0.99], [-0.2, -0.2, 1.3, 1.2]


@pytest.mark.parametrize(
    ("corners", "given", "kept"),
    [
        ([LARGE], [(CAT, 0.6)], [True]),
        ([LARGE, SMALL], [(CAT, 0.9), (CAT, 0.4)], [False, True]),
        ([BEYOND, SMALL], [(CAT, 0.9), (CAT, 0.4)], [False, True]),
        ([LARGE, SMALL], [(CAT, 0.9), (CAT, 0.3)], [True, False]),
        ([LARGE, SMALL], [(CAT, 0.9), (DOG, 0.4)], [True, True]),
        ([[0, 0, 1, 0.8], SMALL], [(CAT, 0.7), (CAT, 0.6)], [True, True]),
    ],
    ids=["alone", "of-a-group", "beyond-the-sides", "the-smaller-is-nothing", "of-another-class", "not-quite"],
)
def test_a_box_of_the_whole_picture(
    corners: list[list[float]], given: list[tuple[int, float]], kept: list[bool]
) -> None:
    """It goes where its class has another that is good enough, and sets no threshold for that."""
    assert BoxFilter().promising(boxes(*given, corners=corners)).tolist() == kept


@pytest.mark.parametrize(
    ("given", "masks", "kept"),
    [
        ([(CAT, 0.9), (CAT, 0.8)], [(0, 40), (40, 80)], [True, True]),
        ([(CAT, 0.8), (CAT, 0.9)], [(0, 40), (5, 42)], [False, True]),
        ([(CAT, 0.9), (CAT, 0.8)], [(0, 40), (20, 60)], [True, True]),
        ([(CAT, 0.9), (CAT, 0.8)], [(0, 40), (19, 59)], [True, False]),
        ([(CAT, 0.9), (CAT, 0.5)], [(0, 40), (10, 15)], [True, False]),
        ([(CAT, 0.9), (CAT, 0.8), (CAT, 0.7)], [(0, 30), (40, 70), (0, 70)], [True, True, False]),
        ([(CAT, 0.8), (DOG, 0.9)], [(0, 40), (0, 41)], [False, True]),
        ([(CAT, 0.9), (DOG, 0.8)], [(0, 40), (10, 15)], [True, True]),
        ([(CAT, 0.9), (DOG, 0.8)], [(0, 30), (10, 40)], [True, True]),
        ([(CAT, 0.9), (DOG, 0.8)], [(0, 30), (9, 39)], [True, False]),
        ([(CAT, 0.9), (DOG, 0.8), (CAT, 0.7)], [(0, 30), (0, 30), (60, 90)], [True, False, True]),
        ([(CAT, 0.9), (CAT, 0.8), (CAT, 0.7)], [(0, 40), (15, 55), (45, 60)], [True, False, True]),
        ([(CAT, 0.9), (DOG, 0.8)], [(0, 0), (0, 0)], [False, False]),
        ([(CAT, 0.9), (CAT, 0.9)], [(0, 40), (0, 40)], [True, False]),
        ([], [], []),
    ],
    ids=[
        "apart",
        "duplicate",
        "half-shared",
        "more-than-half-shared",
        "part",
        "group",
        "one-object-two-names",
        "small-on-large",
        "half-of-the-union",
        "more-than-half-of-the-union",
        "others-stay",
        "what-is-dropped-claims-nothing",
        "empty",
        "tie",
        "none",
    ],
)
def test_one_box_for_one_object(given: list[tuple[int, float]], masks: list[tuple[int, int]], kept: list[bool]) -> None:
    assert BoxFilter().distinct(boxes(*given), strips(*masks)).tolist() == kept


def test_settings_move_the_thresholds() -> None:
    cats = boxes((CAT, 0.9), (CAT, 0.3))
    assert BoxFilter(floor=0.1, relative=0.2).promising(cats).all()
    assert not BoxFilter(relative=0, floor=1).promising(cats).any()
    halves = strips((0, 40), (20, 60))
    assert BoxFilter(within=0.49).distinct(cats, halves).tolist() == [True, False]
    both = boxes((CAT, 0.9), (DOG, 0.8))
    assert BoxFilter(across=0.3).distinct(both, halves).tolist() == [True, False]
    large = boxes((CAT, 0.9), (CAT, 0.8), corners=[[0, 0, 1, 0.8], SMALL])
    assert BoxFilter(whole=0.7).promising(large).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"the fraction 'within' must be a finite number >= 0 and <= 1, not 1\.5"):
        BoxFilter(within=1.5)


def test_the_order_of_boxes_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(30, 4, generator=generator).sort(1).values
    scores = torch.rand(30, generator=generator)
    given = Boxes(corners, scores, torch.arange(30) % 3, (1.2 * scores).clamp(max=1))
    masks = torch.rand(30, 6, 6, generator=generator) > 0.5
    order = torch.randperm(30, generator=generator)
    shuffled = given.where(order)
    keep = BoxFilter()
    assert torch.equal(keep.promising(shuffled), keep.promising(given)[order])
    assert torch.equal(keep.distinct(shuffled, masks[order]), keep.distinct(given, masks)[order])
    assert 0 < keep.distinct(given, masks).sum() < 30
