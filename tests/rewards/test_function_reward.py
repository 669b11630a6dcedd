"""A function as a reward: what it receives, how it is told apart, and what is said if it is wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import TinyModel, registered  # noqa: F401
from torch import Tensor, nn

import rollflow
from rollflow import DPS, BadReward, BadSetting, FunctionReward, Plan, generate
from rollflow.cli import main
from rollflow.rewards import REWARDS, as_reward
from rollflow.rewards.scoring import scored
from rollflow.testing import RewardSuite

PROMPT = "a red square"
HERE = __name__
PIXELS = torch.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4) / 255
FILMS = torch.stack([PIXELS, PIXELS.flip(0)])


def red(images: list[Image.Image], prompts: list[str]) -> list[float]:
    """The mean of the red pixels."""
    return [float(np.asarray(image)[..., 0].mean()) / 255 for image in images]


def red_of_arrays(images: np.ndarray, prompts: list[str]) -> Any:
    return images[..., 0].mean((1, 2))


def red_of_tensors(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def count(images: list[Image.Image], prompts: list[str]) -> list[float]:
    return [float(len(prompt)) for prompt in prompts]


class RedNetwork(nn.Module):
    def forward(self, images, prompts):  # type: ignore[no-untyped-def]
        return images[:, 0].mean((1, 2))


class Scaled:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.scale * images[:, 0].mean((1, 2))


class TestOfTensors(RewardSuite):
    """A differentiable function passes what every reward must."""

    @pytest.fixture
    def reward(self) -> FunctionReward:
        return FunctionReward(red_of_tensors, differentiable=True)

    @pytest.fixture
    def samples(self) -> Tensor:
        return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def prompts(self) -> Sequence[str]:
        return ["a", "b", "c", "d", "e"]


class TestOfPictures(TestOfTensors):
    """A function of PIL images too; its class is what ``module:function`` names."""

    @pytest.fixture
    def reward(self) -> FunctionReward:
        return REWARDS.find(f"{HERE}:red")()  # type: ignore[return-value]


@pytest.mark.parametrize("function", [red, red_of_arrays, red_of_tensors, RedNetwork(), Scaled(1.0)])
def test_the_annotation_decides_what_it_receives(function: Any) -> None:
    torch.testing.assert_close(scored(FunctionReward(function), PIXELS, ["", ""]), PIXELS[:, 0].mean((1, 2)).double())


def received(samples: Tensor, **settings: Any) -> Any:
    kept: list[Any] = []

    def keep(images, prompts):  # type: ignore[no-untyped-def]
        kept.append(images)
        return [0.0] * len(images)

    scored(FunctionReward(keep, **settings), samples, [PROMPT] * len(samples))
    return kept[0]


def test_without_an_annotation_pictures_are_pil() -> None:
    first, _ = received(PIXELS)
    assert (first.mode, first.size) == ("RGB", (4, 2))
    assert np.array_equal(np.asarray(first), (PIXELS[0] * 255).round().permute(1, 2, 0).to(torch.uint8).numpy())
    films = received(FILMS)
    assert [len(film) for film in films] == [2, 2]
    assert [frame.tobytes() for frame in films[0]] == [frame.tobytes() for frame in films[1]][::-1]
    states = torch.rand(2, 5)
    assert torch.equal(received(states), states)


def test_the_flag_decides_over_the_annotation() -> None:
    assert torch.equal(received(FILMS, images="pt"), FILMS)
    array = received(FILMS, images="np")
    assert np.array_equal(array, FILMS.permute(0, 1, 3, 4, 2).numpy())
    assert FunctionReward(red, images="pt").identity != FunctionReward(red).identity
    with pytest.raises(BadSetting, match=r"unknown images of reward 'red' 'pill'; did you mean 'pil'"):
        FunctionReward(red, images="pill")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("annotation", "form"),
    [
        ("Tensor", "pt"),
        ("list[PIL.Image.Image]", "pil"),
        ("Sequence[Image]", "pil"),
        ("np.ndarray", "np"),
        (list[Image.Image], "pil"),
        (Sequence[Tensor], "pt"),
        (torch.Tensor | None, "pt"),
        ("NotImported", None),
        (Any, None),
    ],
)
def test_annotations_are_read_evaluated_or_not(annotation: Any, form: str | None) -> None:
    def function(images, prompts):  # type: ignore[no-untyped-def]
        return images

    function.__annotations__["images"] = annotation
    assert FunctionReward(function)._form == form


def test_a_run_by_a_function_is_that_of_the_class() -> None:
    """Given as an object, in a plan or by name; the record names it, so that the run can be repeated."""
    named = generate(PROMPT, reward=f"{HERE}:red_of_tensors", held_out=[red], method="svdd", nfe=60)
    given = generate(PROMPT, reward=red_of_tensors, held_out=[red], method="svdd", nfe=60)
    built_in = generate(PROMPT, reward="caption", held_out=[], method="svdd", nfe=60)
    for one in (named, given):
        assert torch.equal(one.sample, built_in.sample)
        assert one.reward == pytest.approx(built_in.reward)
        assert one.held_out["red"] == pytest.approx(one.reward, abs=1 / 255)
        assert one.job.plan is not None
        assert (one.job.plan["reward"], one.job.plan["held_out"]) == (f"{HERE}:red_of_tensors", [f"{HERE}:red"])
    again = Plan.from_json(given.job.plan, trusted=True).run()
    assert torch.equal(again.sample, given.sample)


def test_a_differentiable_one_guides() -> None:
    reward = FunctionReward(red_of_tensors, differentiable=True)
    assert generate(PROMPT, reward=reward, method="svdd", nfe=60, guidance=DPS(scale=1.0)).spent.backward_passes > 0
    with pytest.raises(BadSetting, match="for which it must receive tensors"):
        FunctionReward(red, differentiable=True)


def test_settings_are_given_by_text_and_written_as_text() -> None:
    reward = REWARDS.make(f"{HERE}:red(batch_size=2, images=pil)")
    assert isinstance(reward, FunctionReward)
    assert (reward.batch_size, reward.images, reward.function, reward.name) == (2, "pil", red, "red")
    assert REWARDS.text(reward) == f"{HERE}:red(images=pil, batch_size=2)"
    assert REWARDS.text(FunctionReward(red)) == f"{HERE}:red"
    assert REWARDS.text(FunctionReward(red, name="r")) == f"{HERE}:red(name=r)"
    with pytest.raises(BadSetting):
        REWARDS.text(FunctionReward(lambda images, prompts: [0.0]))


def test_two_functions_are_two_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(scale: float) -> Callable[..., Any]:
        return lambda images, prompts: [scale] * len(images)

    different: list[Any] = [
        scaled(1.0),
        scaled(2.0),
        red,
        red_of_tensors,
        Scaled(1.0),
        Scaled(2.0),
        partial(red),
        RedNetwork(),
    ]
    identities = [FunctionReward(one).identity for one in different]
    assert len(set(identities)) == len(different)
    assert FunctionReward(scaled(1.0)).identity == identities[0]
    assert FunctionReward(Scaled(2.0)).identity == identities[5]
    monkeypatch.setattr(Scaled, "__call__", lambda self, images, prompts: [0.0] * len(images))
    assert FunctionReward(Scaled(1.0)).identity != identities[4]


def test_a_large_function_has_a_short_identity() -> None:
    def holding(last: int) -> Callable[..., Any]:
        words = [*range(10_000), last]
        return lambda images, prompts: [float(words[-1])] * len(images)

    one, same, other = (FunctionReward(holding(last)).identity for last in (1, 1, 2))
    assert one == same != other
    assert len(one) < 300


def test_names_are_those_of_functions_and_classes() -> None:
    functions: list[Any] = [red, partial(red), lambda images, prompts: [], Scaled(1.0), Scaled(1.0).__call__]
    assert [FunctionReward(one).name for one in functions] == ["red", "red", "lambda", "Scaled", "Scaled"]


def test_a_name_of_the_library_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FunctionReward(count).name == "count"
    monkeypatch.setitem(REWARDS, "count", REWARDS["caption"])
    assert FunctionReward(count).name == f"{HERE}.count"
    with pytest.raises(BadSetting, match="names must be distinct; got 'red' twice"):
        Plan(PROMPT, held_out=[red, FunctionReward(red, images="pil")])


def test_it_can_be_pickled() -> None:
    reward = pickle.loads(pickle.dumps(REWARDS.make(f"{HERE}:red(batch_size=3)")))
    assert (reward.function, reward.batch_size, reward.name) == (red, 3, "red")


async def later(images: Any, prompts: Any) -> list[float]:
    return []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: [0.0], r"reward 'lambda' has the parameters \(images\); expected a function of two"),
        (later, "reward 'later' is an async function"),
        (RedNetwork, "reward must be a name or a RewardModel or a function f\\(images, prompts\\), not the class"),
        (3, "reward must be a name or a RewardModel or a function f\\(images, prompts\\), not 3"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_loads(function: Any, message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        Plan(PROMPT, reward=function)
    assert TinyModel.loads == 0


def fails(images: Any, prompts: Any) -> Any:
    raise KeyError("red")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, "reward 'fails' failed: KeyError: 'red'"),
        (lambda images, prompts: images.mean(), "AttributeError: .*; it received PIL images: annotate its first"),
        (lambda images, prompts: [0.0], r"reward 'lambda' gave shape \(1,\) for 2 samples; expected one number per"),
        (lambda images, prompts: None, "reward 'lambda' gave NoneType None for 1 samples; expected one number per"),
        (lambda images, prompts: ([0.0] * len(images), {}), r"reward 'lambda' gave tuple \(\[0.0\], \{\}\)"),
        (lambda images, prompts: [float("nan")] * len(images), "no sample can be chosen: first, reward 'lambda' gave"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(function: Any, message: str) -> None:
    with pytest.raises(BadReward, match=message) as error:
        generate(PROMPT, reward=function, method="bon", nfe=20)
    assert "\n" not in str(error.value)


def test_the_command_line_names_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--method", "svdd", "--nfe", "60"]
    assert main(["generate", PROMPT, "--reward", f"{HERE}:red", *options, "--out", "out"]) == 0
    content = json.loads(Path("out/result.json").read_text())
    assert (content["reward_name"], content["plan"]["reward"]) == ("red", f"{HERE}:red")
    capsys.readouterr()
    assert main(["score", f"{HERE}:red", "out/image.png", "--prompt", PROMPT]) == 0
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(content["reward"], abs=1e-6)
    assert main(["generate", PROMPT, "--reward", f"{HERE}:fails", *options, "--out", "failed"]) != 0
    assert capsys.readouterr().err.strip() == "error: reward 'fails' failed: KeyError: 'red'"


def test_samples_that_are_no_pictures_need_a_tensor() -> None:
    model = (lambda x, t: x, (5,))
    with pytest.raises(rollflow.RollflowError, match=r"annotate its first parameter as torch\.Tensor"):
        generate(PROMPT, model=model, reward=red, method="bon", nfe=20)


def test_anything_else_is_returned_as_it_is() -> None:
    reward = FunctionReward(red)
    assert as_reward(reward) is reward
    assert as_reward("caption") == "caption"
    kind: Any = RedNetwork
    assert as_reward(kind) is kind
