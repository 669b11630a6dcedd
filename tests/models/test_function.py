"""A velocity function and a shape as a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import rollflow
from rollflow import DPS, BadModel, BadSetting, FunctionModel, Linear, Plan, Task, load_model
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.rewards import RewardModel
from rollflow.rewards.toy import ToyReward
from rollflow.testing import ModelSuite

MEAN, STD = 0.5, 0.1
SHAPE = (3, 8, 8)


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """Every pixel N(0.5, 0.1^2), independently: E[eps - x0 | x_t] of a Gaussian."""
    t = t[:, None, None, None]
    variance = ((1 - t) * STD) ** 2 + t**2
    clean = MEAN + (1 - t) * STD**2 / variance * (x - (1 - t) * MEAN)
    return (x - clean) / t


def doubled(x: Tensor, t: Tensor) -> Tensor:
    return 2 * gaussian(x, t)


class Brightness(RewardModel):
    """The mean of all pixels."""

    name = "brightness"
    description = "mean of all pixels"
    differentiable = True

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples.mean((1, 2, 3))


class TestFunctionModel(ModelSuite):
    tolerance = 1e-6  # float32

    @pytest.fixture
    def model(self) -> FunctionModel:
        mixture = GaussianMixture(torch.tensor([0.7, 0.3]), torch.tensor([[-2.0], [0.5]]), torch.tensor([0.3, 0.6]))
        return FunctionModel(lambda x, t: mixture.velocity(x.double(), t.double()).float(), (1,))

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return "left", "right"

    def test_the_prompt_matters(self, model: Any, prompts: Sequence[str]) -> None:
        """It does not: a function knows no prompt."""
        x, t = torch.zeros(2, 1), torch.ones(2, dtype=torch.float64)
        left, right = (model.velocity(x, t, [model.encode(prompt)] * 2) for prompt in prompts)
        assert torch.equal(left, right)


def test_a_pair_is_searched_as_the_model_that_it_makes() -> None:
    results = [
        rollflow.generate("anything", model=model, reward=Brightness(), method="svdd", nfe=60, seed=3)
        for model in ((gaussian, SHAPE), FunctionModel(gaussian, list(SHAPE)), load_model((gaussian, SHAPE)))
    ]
    for result in results:
        assert result.sample.shape == SHAPE
        assert torch.equal(result.sample, results[0].sample)
        assert torch.equal(result.sample, result.x0)  # the decoder is the identity
    assert results[0].reward == pytest.approx(float(results[0].sample.mean()))


@pytest.mark.slow
def test_the_samples_are_of_the_law_that_the_velocity_says() -> None:
    """400 steps of Euler from noise: mean and standard deviation of 192 pixels within four standard errors."""
    plan = Plan(
        "anything", model=(gaussian, SHAPE), reward=Brightness(), method="bon", kernel="ode", nfe=400, steps=400
    )
    sample = rollflow.Engine().run([plan.job()])[0].sample
    assert abs(float(sample.mean()) - MEAN) < 4 * STD / sample.numel() ** 0.5
    assert abs(float(sample.std()) - STD) < 4 * STD / (2 * sample.numel()) ** 0.5


def test_guidance_goes_through_it() -> None:
    """Brightness is followed uphill: with DPS the same noise ends brighter, at a backward pass a step."""
    plain, guided = (
        rollflow.generate("anything", model=(gaussian, SHAPE), reward=Brightness(), method="bon", nfe=10, guidance=dps)
        for dps in (None, DPS())
    )
    assert guided.reward > plain.reward + 0.02
    assert (plain.spent.backward_passes, guided.spent.backward_passes) == (0, 9)


def test_a_task_takes_a_pair() -> None:
    task = Task((gaussian, SHAPE), "anything", Brightness())  # type: ignore[arg-type]
    assert isinstance(task.model, FunctionModel)
    assert (task.model.shape, task.model.interpolant) == (SHAPE, Linear())


def scaled(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: factor * gaussian(x, t)


def test_identities_tell_functions_shapes_and_what_is_enclosed_apart() -> None:
    """Of the same function it is the same; a checkpoint is continued by no other."""
    functions: list[Any] = [
        gaussian,
        doubled,
        scaled(2.0),
        scaled(3.0),
        torch.nn.Bilinear(1, 1, 1),
        torch.nn.Bilinear(1, 1, 1),
    ]
    identities = [FunctionModel(function, SHAPE).identity for function in functions]
    assert len(set(identities)) == len(functions)
    assert FunctionModel(gaussian, SHAPE).identity == identities[0]
    assert FunctionModel(scaled(2.0), SHAPE).identity == identities[2]
    assert FunctionModel(gaussian, (3, 8, 9)).identity != identities[0]


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ((gaussian,), r"a pair \(velocity, shape\); got 1 item"),
        ((gaussian, SHAPE, 0), r"a pair \(velocity, shape\); got 3 items"),
        ((SHAPE, gaussian), "got the shape first"),
        ((3, SHAPE), r"a function velocity\(x, t\), not 3"),
        ((torch.nn.Linear, SHAPE), "the class Linear; make an object of it"),
        ((gaussian, 3), "shape of the model must be a tuple of whole numbers, not 3"),
        ((gaussian, (3, 0)), r"shape of the model\[1\] must be a whole number >= 1, not 0"),
        ((gaussian, (3, 8.0)), r"shape of the model\[1\] must be a whole number >= 1, not 8.0"),
        ((gaussian, ()), "shape of the model is empty"),
        ([gaussian, SHAPE], "model must be .*, not"),
    ],
)
def test_wrong_pairs_are_refused_in_words(pair: Any, says: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: Plan("anything", model=pair, reward=Brightness()),
        lambda: Task(pair, "anything", Brightness()),
        lambda: load_model(pair),
    ]
    for call in calls:
        with pytest.raises(BadSetting, match=says):
            call()


@pytest.mark.parametrize(
    ("velocity", "says"),
    [
        (lambda x, t: x[:, :1], r"velocity of model 'function' gave \(\d+, 1, 8, 8\); expected shape \(\d+, 3, 8, 8\)"),
        (lambda x, t: t[:, None] * x, "the network of model 'function' failed"),
        (lambda x, t: None, "velocity of model 'function' gave NoneType"),
        (lambda x: x, "the network of model 'function' failed: .*positional argument"),
    ],
    ids=["shape", "broadcast", "nothing", "arguments"],
)
def test_what_a_function_does_wrong_is_said_when_it_is_called(velocity: Any, says: str) -> None:
    with pytest.raises(BadModel, match=says):
        rollflow.generate("anything", model=(velocity, SHAPE), reward=Brightness(), method="bon", nfe=30)


def early(x: Tensor, t: Tensor) -> Tensor:
    return x * t[0]


@pytest.mark.parametrize("shape", [(1,), (2,), (4,), (3, 4, 4), (3, 2, 2), (3, 1, 1), (2, 3, 4)], ids=str)
@pytest.mark.parametrize(
    ("velocity", "says"),
    [
        (lambda x, t: t * x, "it fails on|for . rows it gave"),
        (lambda x, t: t.view(-1, *[1] * (x.ndim - 2)) * x if x.ndim > 2 else t * x, "it fails on|for . rows it gave"),
        (early, "the velocity of a row among . is not what it is alone"),
        (lambda x, t: x - x.mean(0), "the velocity of a row among . is not what it is alone"),
    ],
    ids=["plain product", "one side too few", "first time", "mean of all"],
)
def test_times_and_rows_that_meet_others_are_refused(velocity: Any, says: str, shape: tuple[int, ...]) -> None:
    """Whatever the sides of a state, also where there are as many rows; the error shows what to write."""
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"t = t\.view\(-1, \*\[1\] \* \(x\.ndim - 1\)\)") as refused:
        FunctionModel(velocity, shape).velocity(x, torch.ones(4), [None] * 4)
    assert re.match(says, str(refused.value))
    right = FunctionModel(lambda x, t: t.view(-1, *[1] * (x.ndim - 1)) * x, shape)
    assert torch.equal(right.velocity(x, torch.ones(4), [None] * 4), x)


def test_the_error_of_a_run_names_the_model_and_says_what_to_write() -> None:
    """Where the batch is as wide as a state: without the trial nothing would show it."""
    with pytest.raises(BadModel, match=r"the network of model 'function' failed: .*t = t\.view"):
        rollflow.generate("anything", model=(lambda x, t: t * x, (10,)), reward=ToyReward(), method="bon", nfe=100)


def test_the_trial_is_made_once_and_is_in_no_account() -> None:
    rows = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        rows.append(len(x))
        return gaussian(x, t)

    result = rollflow.generate("anything", model=(velocity, SHAPE), reward=Brightness(), method="bon", nfe=30)
    assert rows[:3] == [1, 1, 2]
    assert sum(rows[3:]) == result.spent.nfe == 30


def test_rounding_is_no_dependence_on_other_rows() -> None:
    def rounded(x: Tensor, t: Tensor) -> Tensor:
        return gaussian(x, t) * (1 + 1e-3 * len(x))

    model = FunctionModel(rounded, SHAPE)
    assert model.velocity(torch.ones(1, *SHAPE), torch.ones(1), [None]).shape == (1, *SHAPE)


FACTOR = 2.0
TABLE = {"shift": [0.1, 0.2]}
NETWORK = torch.nn.Linear(2, 2)
CALLS = 0


def helper(x: Tensor) -> Tensor:
    return x * FACTOR


def reading(x: Tensor, t: Tensor) -> Tensor:
    global CALLS
    CALLS += 1
    shifted: Tensor = helper(x) + TABLE["shift"][0] + (lambda y: NETWORK(y))(x)
    return shifted


@pytest.mark.parametrize(
    ("name", "value"),
    [("FACTOR", 3.0), ("TABLE", {"shift": [0.3, 0.2]}), ("NETWORK", torch.nn.Linear(2, 2)), ("helper", gaussian)],
)
def test_identities_tell_what_a_function_reads_of_its_module(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a function that it calls reads, or one that it makes; but not what it writes itself."""
    before = FunctionModel(reading, (2,)).identity
    monkeypatch.setitem(globals(), "CALLS", 7)
    assert FunctionModel(reading, (2,)).identity == before
    monkeypatch.setitem(globals(), name, value)
    assert FunctionModel(reading, (2,)).identity != before


def test_it_gets_times_in_the_type_of_its_states() -> None:
    """So that a plain product does not turn float32 into float64."""
    seen = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.dtype, t.dtype, tuple(t.shape) == (len(x),)))
        return x

    rollflow.generate("anything", model=(velocity, (2,)), reward=ToyReward(), method="bon", nfe=20)
    assert set(seen) == {(torch.float32, torch.float32, True)}
