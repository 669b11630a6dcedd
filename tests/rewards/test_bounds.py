"""The range that every reward declares: beside what its card says, and at its ends."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.judges.human import Human
from rollflow.rewards.judges.rubric_files import OwnRubric
from rollflow.rewards.judges.rubrics import Alignment, Text, Whole, YesNo
from rollflow.rewards.judges.vlm_judge import VLMJudge
from rollflow.rewards.mixing import Constants, Lexicographic, Minimum, Pessimistic, RankAverage, Running, WeightedSum
from rollflow.rewards.pixels.colorfulness import Colorfulness
from rollflow.rewards.toy import ToyReward

INF = math.inf
DECLARED: dict[str, tuple[float, float] | None] = {
    **dict.fromkeys(("count", "judge", "counting", "style", "jpeg-compressibility"), (-INF, 0.0)),
    **dict.fromkeys(("count-smooth", "counting-smooth"), (-INF, 0.0)),
    **dict.fromkeys(("caption", "caption-judge", "counting-accuracy", "vqascore"), (0.0, 1.0)),
    **dict.fromkeys(("vqascore-instructblip", "vqascore-qwen"), (0.0, 1.0)),
    **dict.fromkeys(("hpsv2", "hpsv2.1"), (-1.0, 1.0)),  # cosines
    "clipscore": (0.0, 2.5),
    "image-reward": (-INF, INF),
    "jpeg-incompressibility": (0.0, INF),
    "colorfulness": (0.0, 255 * math.sqrt(1.25 * 1.09)),
    # Those of the loaded weights, of the settings, of the parts, of the server:
    **dict.fromkeys(("aesthetic", "aesthetic-v1", "pickscore", "vlm-judge", "human", "remote"), None),
}
OF_PARTS = {"sum", "minimum", "pessimistic", "lexicographic", "rank-average", "augmented", "soft-tifa"}
ENDS = {  # what a card says, and the ends that it then has
    r"minus infinity to 0|\(-inf, 0\]|below 0": (-INF, 0.0),
    r"^0 to 1$|^0 or 1$": (0.0, 1.0),
    r"^\[0, 2.5\]": (0.0, 2.5),
    r"^above 0": (0.0, INF),
}


def test_every_reward_is_here() -> None:
    assert {name for name in REWARDS if name not in OF_PARTS} == set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_the_card_says_what_is_declared(name: str) -> None:
    kind: Any = REWARDS[name]
    assert kind.bounds == DECLARED[name]
    assert kind.card is not None
    for pattern, ends in ENDS.items():
        if kind.bounds is not None and re.search(pattern, kind.card.range):
            assert kind.bounds == ends


def test_the_most_colourful_picture() -> None:
    """Pure red beside its complement, in such shares that spread and mean are as 1 to 0.3; half and half has less."""
    scores = []
    for reds in (500, 644):
        picture = torch.zeros(1, 3, 1, 1000)
        picture[:, 0, :, :reds] = 1
        picture[:, 1:, :, reds:] = 1
        scores.append(float(Colorfulness().score(picture, [""])))
    most = Colorfulness.bounds[1]
    assert scores[0] < scores[1] <= most
    assert scores[1] == pytest.approx(most, rel=1e-5)


def test_settings_decide() -> None:
    assert Human("choose").bounds == (0, INF)
    assert Human("rate").bounds == (0, 10)
    assert [VLMJudge(rubric=rubric).bounds for rubric in ("alignment", "erasure", "counts")] == [
        (0, 10),
        (0, INF),
        (-INF, 0),
    ]
    assert VLMJudge(rubric="alignment", refused=-2.5).bounds == (-2.5, 10)
    assert VLMJudge(rubric="counts", refused=1).bounds == (-INF, 1)
    answers = (("why", Text("?")), ("good", YesNo("?")), ("bad", YesNo("?")), ("looks", Whole("?", 2, 7)))
    rubric = OwnRubric("?", answers, (("bad", -3.0), ("looks", 0.5)))
    assert VLMJudge(rubric=rubric).bounds == rubric.bounds == (1.0 - 3.0, 1.0 + 3.5)
    assert rubric.number({"why": "", "good": True, "bad": False, "looks": 7}, "") == 4.5
    assert Alignment.bounds == (0, 10)
    assert (ToyReward().bounds, ToyReward(torch.zeros(2)).bounds) == ((-INF, INF), (-INF, 0))


class Ranged(RewardModel):
    """Of any range."""

    name = "ranged"
    description = "a number"

    def __init__(self, name: str, bounds: tuple[float, float] | None) -> None:
        vars(self).update(name=name)
        self.bounds = bounds

    def score(self, samples: Tensor, prompts: Any) -> Tensor:
        return samples


A, B, C = Ranged("a", (-2.0, 4.0)), Ranged("b", (0.0, 10.0)), Ranged("c", (-INF, 0.0))
SCALED = Constants((1.0, 5.0), (2.0, 5.0))


@pytest.mark.parametrize(
    ("mixture", "bounds"),
    [
        (WeightedSum((A, B)), (-2, 14)),
        (WeightedSum((A, B), (1.0, -0.5)), (-7, 4)),
        (WeightedSum((A, B), (1.0, 2.0), SCALED), (-1.5 - 2, 1.5 + 2)),
        (WeightedSum((A, C)), (-INF, 4)),
        (WeightedSum((A, C), (1.0, -1.0)), (-2, INF)),
        (WeightedSum((A, C), (1.0, 0.0)), (-2, 4)),
        (WeightedSum((C, Ranged("d", (0.0, INF)))), (-INF, INF)),
        (WeightedSum((A, B), None, Running()), None),
        (WeightedSum((A, Ranged("e", None))), None),
        (Minimum((A, B)), (-2, 4)),
        (Minimum((A, C)), (-INF, 0)),
        (Minimum((A, B), SCALED), (-1.5, 1)),
        (Pessimistic((A, B)), (-2, 7)),  # with two parts, the smaller of them at its ends
        (Pessimistic((A, B), 3.0), (1 / 2 * (-2 + 10) - 3 * 12 / 2, 7)),
        (Pessimistic((A, B), 0.0), (-1, 7)),
        (Pessimistic((A, C)), (-INF, 2)),
        (Pessimistic((A, C), 0.0), (-INF, 2)),
        (Lexicographic((A, Ranged("e", None)), (0.0, 1.0)), (0, 3)),
        (RankAverage((A, Ranged("e", None))), (0, 1)),
    ],
)
def test_those_of_mixtures_follow_from_those_of_their_parts(
    mixture: RewardModel, bounds: tuple[float, float] | None
) -> None:
    """And what the mixtures make of the parts' ends, finite ones, lies within."""
    assert mixture.bounds == (None if bounds is None else pytest.approx(bounds))
    if bounds is not None:
        ends = [part.bounds or (-100.0, 100.0) for part in mixture.parts]
        grid = torch.cartesian_prod(
            *(torch.linspace(max(low, -100.0), min(high, 100.0), 7, dtype=torch.float64) for low, high in ends)
        )
        made = mixture.combine(grid, grid)
        assert bounds[0] - 1e-9 <= made.min() <= made.max() <= bounds[1] + 1e-9
        for end, reached in zip(bounds, (made.min(), made.max()), strict=True):
            if math.isfinite(end) and isinstance(mixture, WeightedSum | Minimum):
                assert float(reached) == pytest.approx(end)
