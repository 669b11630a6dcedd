"""Mixed rewards by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, Task
from rollflow.errors import RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.mixing import (
    Constants,
    Lexicographic,
    Minimum,
    Mixture,
    RankAverage,
    Running,
    WeightedSum,
)
from rollflow.sampler import Sampler
from rollflow.search import BestOfN
from rollflow.testing import RewardSuite


class Column(RewardModel):
    """A coordinate of the sample."""

    description = "a coordinate"
    differentiable = True
    held_out = ("judge",)

    def __init__(self, at: int) -> None:
        self.at, self.name = at, f"column {at}"  # type: ignore[misc]

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, self.at]


PARTS = (Column(0), Column(1))
SAMPLES = torch.tensor([[1.0, 5.0], [2.0, 4.0], [3.0, 4.0], [0.0, 9.0]], dtype=torch.float64)


def scores(mixture: Mixture) -> list[float]:
    rewards = mixture.score(SAMPLES, [""] * 4)
    assert rewards.dtype == torch.float64
    return rewards.tolist()


def test_weighted_sum() -> None:
    assert scores(WeightedSum(PARTS)) == [6, 6, 7, 9]
    assert scores(WeightedSum(PARTS, (2.0, -1.0))) == [-3, 0, 2, -9]
    assert scores(WeightedSum(PARTS, (2.0, -1.0), Constants((1.0, 4.0), (0.5, 2.0)))) == [-0.5, 4, 8, -6.5]


def test_running_statistics() -> None:
    """Of the first column mean 1.5 and variance 1.25, of the second 5.5 and 4.25."""
    mixed = scores(WeightedSum(PARTS, None, Running()))
    expected = [(a - 1.5) / math.sqrt(1.25) + (b - 5.5) / math.sqrt(4.25) for a, b in SAMPLES.tolist()]
    assert mixed == pytest.approx(expected)
    alone = WeightedSum(PARTS, None, Running()).score(SAMPLES[:1], [""])
    assert alone.tolist() == [0], "one sample has no spread"


def test_running_statistics_are_of_all_that_was_seen() -> None:
    """The third of three is far above the mean of 0 and 3, of variance 2."""
    seen = torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    [reward] = WeightedSum(PARTS, None, Running()).combine(seen[2:], seen)
    assert float(reward) == pytest.approx(2 / math.sqrt(2))


def test_minimum() -> None:
    assert scores(Minimum(PARTS)) == [1, 2, 3, 0]
    assert scores(Minimum(PARTS, Constants((0.0, 4.0), (1.0, 0.5)))) == [1, 0, 0, 0]


def test_lexicographic() -> None:
    """Who reaches the first threshold is above who does not; beyond it the second counts."""
    mixture = Lexicographic(PARTS, (2.0, 5.0))
    assert scores(mixture) == [0.25, 1.25, 1.25, pytest.approx((1 - 2 / 3) / 2)]
    assert mixture.mixed(torch.tensor([[2.0, 5.0], [9.0, 6.0]])).tolist() == [2.5, 2.75]


def test_rank_average() -> None:
    """Ranks by hand: of the first column 1, 2, 3, 0 of 4 are less; ties count half, oneself included."""
    assert scores(RankAverage(PARTS)) == [0.5, 0.4375, 0.5625, 0.5]
    assert scores(RankAverage(PARTS, (1.0, 0.0))) == [0.375, 0.625, 0.875, 0.125]
    seen = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 5.0]], dtype=torch.float64)
    assert RankAverage(PARTS).combine(seen[2:], seen).tolist() == [pytest.approx(2.5 / 3)]


def test_ranks_do_not_change_with_scale() -> None:
    mixture = RankAverage(PARTS)
    assert torch.equal(mixture.combine(SAMPLES, SAMPLES), mixture.combine(SAMPLES**3, SAMPLES**3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedSum(PARTS[:1]), "needs at least two parts; got column 0"),
        (lambda: WeightedSum((Column(0), Column(0))), "mixture part names must be distinct; got 'column 0' twice"),
        (lambda: WeightedSum((RankAverage(PARTS), Column(2))), "'rank-average' depends on earlier scores"),
        (lambda: WeightedSum(PARTS, (1.0,)), "got 1 weights for 2 parts"),
        (lambda: Lexicographic(PARTS, (1.0, 2.0, 3.0)), "got 3 thresholds for 2 parts"),
        (lambda: RankAverage(PARTS, (-1.0, 2.0)), "weights >= 0, at least one of them above 0"),
        (lambda: WeightedSum(PARTS, None, Constants((1.0,), (1.0,))), "got 1 constants for 2 parts"),
        (lambda: Constants((1.0,), (0.0,)), "one mean and one positive std per part"),
    ],
)
def test_what_does_not_fit_is_said(make: object, message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        make()  # type: ignore[operator]


def test_by_name() -> None:
    made = REWARDS.make(
        "sum(parts=count;minimum(parts=caption;judge), weights=1;0.5, normalization=constants(mean=0;1, std=1;2))"
    )
    assert isinstance(made, WeightedSum)
    assert [part.name for part in made.parts] == ["count", "minimum"]
    assert made.weights == (1.0, 0.5)
    assert made.normalization == Constants((0.0, 1.0), (1.0, 2.0))
    count, caption, judge = (REWARDS.make(name).identity for name in ("count", "caption", "judge"))
    assert made.identity == (
        f"sum({count}, minimum({caption}, {judge}, normalization=Raw()), "
        "normalization=Constants(mean=(0.0, 1.0), std=(1.0, 2.0)), weights=(1.0, 0.5))"
    )
    with pytest.raises(RollflowError, match=r"reward 'sum' needs parts: sum\(parts=...\)"):
        REWARDS.resolve("sum")


def test_what_a_mixture_says_of_itself() -> None:
    assert WeightedSum(PARTS).differentiable
    assert not WeightedSum(PARTS, None, Running()).differentiable
    assert not RankAverage(PARTS).differentiable
    assert WeightedSum(PARTS).held_out == ("judge",)
    assert REWARDS.make("sum(parts=count;judge)").held_out == ()


def test_a_gradient_through_a_mixture(plane: ToyModel) -> None:
    """That of the weighted sum of the coordinates is their weights, and so guidance goes where the sum says."""
    task = Task(plane, "corners", WeightedSum(PARTS, (0.5, 2.0)))
    guided = Job(task, BestOfN(), 60, 1, Sampler(Linear(), steps=3, guidance=DPS(0.5)))
    [led], [plain] = (Engine().run([job]) for job in (guided, Job(task, BestOfN(), 60, 1, Sampler(Linear(), steps=3))))
    assert led.reward > plain.reward + 0.5


def test_parts_are_reported_on_their_own(plane: ToyModel) -> None:
    for mixture in (WeightedSum(PARTS, (0.5, 2.0)), RankAverage(PARTS)):
        [result] = Engine().run([Job(Task(plane, "corners", mixture), BestOfN(), 12, 1, Sampler(Linear(), steps=3))])
        assert result.parts == {"column 0": float(result.x0[0]), "column 1": float(result.x0[1])}
    assert result.reward < 1
    [single] = Engine().run([Job(Task(plane, "corners", Column(0)), BestOfN(), 3, 1, Sampler(Linear(), steps=3))])
    assert single.parts == {}


class TestMixtures(RewardSuite):
    """Those that look at nothing else."""

    @pytest.fixture(
        params=[WeightedSum(PARTS, (1.0, 3.0)), Minimum(PARTS), Lexicographic(PARTS, (1.5, 4.5))], ids=lambda m: m.name
    )
    def reward(self, request: pytest.FixtureRequest) -> RewardModel:
        made: RewardModel = request.param
        return made

    @pytest.fixture
    def samples(self) -> Tensor:
        return SAMPLES

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return [""] * 4


class Renamed(Column):
    """Known by its name only once it is loaded, as a hosted one is."""

    remote = True

    def __init__(self, name: str) -> None:
        super().__init__(0)
        self.late, self.name = name, "remote"  # type: ignore[misc]

    def load(self) -> None:
        self.name = self.late  # type: ignore[misc]
        self.structured = self.interactive = True


def test_names_of_parts_from_elsewhere_are_compared_once_they_are_known() -> None:
    mixture = WeightedSum((Renamed("a"), Renamed("b")))
    assert (mixture.structured, mixture.interactive) == (False, False)
    mixture.load()
    assert [part.name for part in mixture.parts] == ["a", "b"]
    assert (mixture.structured, mixture.interactive) == (True, True)
    with pytest.raises(RollflowError, match="mixture part names must be distinct; got 'column 1' twice"):
        WeightedSum((Renamed("column 1"), Column(1))).load()


class Square(Column):
    """Of square samples."""

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        return None if shape[-1] == shape[-2] else f"expected a square, got {shape}"


def test_a_shape_that_a_part_cannot_score_does_not_fit_the_mixture() -> None:
    mixture = WeightedSum((Column(0), Square(1)))
    assert mixture.unfit((3, 8, 8)) is None
    assert mixture.unfit((3, 8, 9)) == "expected a square, got (3, 8, 9)"
