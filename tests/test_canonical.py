"""Values as texts: equal for equal values in any process, different for different ones."""

from __future__ import annotations

import functools
import math
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.waiting import PATIENCE

from rollflow import BestOfN, Job, RewardModel, Task
from rollflow.canonical import canonical, stable_repr
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward


@dataclass(frozen=True)
class Settings:
    scale: float
    of: Any = None


class Colour(Enum):
    RED = 1
    BLUE = 2


class Plain:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: float) -> float:
        return x * self.scale

    def method(self) -> None: ...


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


def scaled(scale: float) -> Callable[[float], float]:
    def inner(x: float) -> float:
        return x * scale

    return inner


def default(x: float, scale: float = 2.0) -> float:
    return x * scale


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(colour: str, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (2, 3), colour)


MAKE: dict[str, Callable[[], tuple[Any, Any]]] = {
    "numbers": lambda: (1, 2),
    "a number and a text": lambda: (1, "1"),
    "a whole number and a float": lambda: (1, 1.0),
    "infinite and not a number": lambda: (math.inf, math.nan),
    "dicts": lambda: ({"a": 1, "b": [2, 3]}, {"a": 1, "b": [2, 4]}),
    "sets": lambda: ({"a", "b", "c"}, {"a", "b", "d"}),
    "bytes": lambda: (b"ab", b"ac"),
    "enums": lambda: (Colour.RED, Colour.BLUE),
    "tensors": lambda: (torch.zeros(2), torch.tensor([0.0, 1.0])),
    "tensors of other shapes": lambda: (torch.zeros(2, 1), torch.zeros(1, 2)),
    "tensors of other dtypes": lambda: (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    "half precision": lambda: (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    "arrays": lambda: (np.zeros(2), np.ones(2)),
    "scalars": lambda: (np.float32(1), np.float32(2)),
    "pictures": lambda: (picture("red"), picture("blue")),
    "pictures in lists": lambda: ([picture("red")], [picture("blue")]),
    "pictures of other modes": lambda: (picture("black", "L"), picture("black", "P")),
    "generators": lambda: (generator(0), generator(1)),
    "networks": lambda: (_net(0), _net(1)),
    "dataclasses": lambda: (Settings(1.0, [Settings(2.0)]), Settings(1.0, [Settings(3.0)])),
    "objects": lambda: (Plain(1.0), Plain(2.0)),
    "objects with slots": lambda: (Slotted(1.0), Slotted(2.0)),
    "objects with a configuration": lambda: (_configured(1), _configured(2)),
    "functions": lambda: (default, scaled),
    "functions and what they enclose": lambda: (scaled(1.0), scaled(2.0)),
    "lambdas": lambda: (lambda x: x + 1, lambda x: x + 2),
    "methods": lambda: (Plain(1.0).method, Plain(2.0).method),
    "partial functions": lambda: (functools.partial(default, scale=1.0), functools.partial(default, scale=3.0)),
    "builtins": lambda: (max, min),
    "classes": lambda: (Plain, Settings),
    "paths": lambda: (Path("a"), Path("b")),
}


def _net(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 3)


def _configured(value: int) -> Any:
    return SimpleNamespace(config={"value": value, "_name_or_path": f"/somewhere/{id(object())}"})


@pytest.mark.parametrize("what", MAKE)
def test_equal_values_are_told_alike_and_others_apart(what: str) -> None:
    (one, other), (again, _) = MAKE[what](), MAKE[what]()
    assert canonical(one) == canonical(again) != canonical(other)
    assert " at 0x" not in canonical(one)


def told() -> str:
    return "\n".join(canonical(MAKE[what]()[0]) for what in MAKE)


@pytest.mark.subprocess
def test_another_process_tells_the_same() -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": paths}
    command = [sys.executable, "-c", "import test_canonical as t; print(t.told(), end='')"]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert other.stdout.replace("test_canonical:", "") == told().replace(f"{__name__}:", "")


def test_what_holds_itself() -> None:
    around: list[Any] = [1]
    around.append(around)
    assert canonical(around) == canonical(around)
    one, other = Plain(1.0), Plain(2.0)
    one.scale, other.scale = other, one  # type: ignore[assignment]
    assert " at 0x" not in canonical(one)


def test_a_repr_is_kept_where_it_holds_no_address() -> None:
    assert stable_repr(Settings(1.0)) == repr(Settings(1.0))
    assert stable_repr(Settings(1.0, default)) == canonical(Settings(1.0, default))
    assert stable_repr(Plain(1.0)) != stable_repr(Plain(2.0))
    assert stable_repr(Plain(1.0)) == stable_repr(Plain(1.0))


class Mine(RewardModel):
    """A reward of a user's, which says nothing of its identity."""

    name = "mine"
    description = "brightness towards a target"

    def __init__(self, target: float = 0.0, by: Any = None, device: str = "cpu", batch_size: int = 4) -> None:
        self.target, self._by, self.device, self.batch_size = target, by, torch.device(device), batch_size
        self.calls = 0

    def score(self, samples: torch.Tensor, prompts: Any) -> torch.Tensor:
        self.calls += 1
        return -(samples.flatten(1).mean(1) - self.target).abs()


def test_a_reward_is_told_from_itself_with_other_settings() -> None:
    assert Mine().identity == Mine(batch_size=8).identity == "mine"
    assert Mine(0.5).identity == "mine(target=0.5)"
    told = [Mine(0.5, by).identity for by in (default, scaled(1.0), scaled(2.0), torch.ones(2), torch.zeros(2))]
    assert len(set(told)) == len(told)
    assert not any(" at 0x" in one for one in told)
    used = Mine(0.5)
    used.score(torch.zeros(1, 3, 2, 2), ["a"])
    assert used.identity == Mine(0.5).identity
    assert ToyReward(torch.zeros(2)).identity != ToyReward(torch.ones(2)).identity != ToyReward().identity
    mixtures = [
        ToyModel({"a": GaussianMixture(torch.ones(1), torch.full((1, 2), m), torch.ones(1))}) for m in (0.0, 1.0)
    ]
    assert mixtures[0].identity != mixtures[1].identity


@dataclass(frozen=True)
class Called(BestOfN):
    """A search of a user's that holds a function."""

    by: Callable[..., float] = max


def test_a_checkpoint_of_a_search_that_holds_a_function_fits_the_same_search() -> None:
    prints = []
    for scale in (1.0, 1.0, 2.0):
        model = ToyModel({"a": GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1))})
        prints.append(fingerprint(Job(Task(model, "a", ToyReward()), Called(by=scaled(scale)), 20)))
    assert prints[0] == prints[1] != prints[2]
    assert " at 0x" not in str(prints)


class Net(torch.nn.Module):
    def __init__(self, act: torch.nn.Module, buffer: float = 0.0) -> None:
        super().__init__()
        self.act, self.linear = act, torch.nn.Linear(2, 2)
        self.register_buffer("kept", torch.full((3,), buffer))
        with torch.no_grad():
            self.linear.weight.fill_(1)
            self.linear.bias.fill_(0)


def nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = Settings(0.0, [value])
    return value


def one_changed(length: int) -> list[int]:
    return [0] * (length // 2) + [1] + [0] * (length - length // 2 - 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nested(20, 1), nested(20, 2)),
        (torch.zeros(5000), torch.tensor(one_changed(5000)).float()),
        (torch.tensor([0.12345678]), torch.tensor([0.12345679])),
        (np.zeros(5000), np.array(one_changed(5000), float)),
        (np.array([0] * 5000, object), np.array(one_changed(5000), object)),
        (torch.zeros(3, device="meta"), torch.zeros(4, device="meta")),
        (operator.itemgetter(1), operator.itemgetter(2)),
        ("abc".startswith, "xyz".startswith),
        (re.compile("a" * 300 + "b"), re.compile("a" * 300 + "c")),
        (Net(torch.nn.ReLU()), Net(torch.nn.GELU())),
        (Net(torch.nn.Dropout(0.1)), Net(torch.nn.Dropout(0.5))),
        (Net(torch.nn.ReLU()), Net(torch.nn.ReLU(), 1.0)),
        (frozenset("ab"), frozenset("ac")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_neither_depth_nor_size_hides_a_difference(one: Any, other: Any) -> None:
    assert canonical(one) != canonical(other)
    assert stable_repr(Settings(1.0, one)) != stable_repr(Settings(1.0, other))


def test_a_spawned_process_tells_its_main_module_as_the_first_does() -> None:
    made = type("Made", (), {"__module__": "__main__"})
    spawned = type("Made", (), {"__module__": "__mp_main__"})
    assert canonical(made) == canonical(spawned)


def test_a_numpy_number_is_told_as_the_plain_one() -> None:
    assert canonical(np.float64(0.5)) == canonical(0.5)
    assert canonical(np.int32(3)) == canonical(3)


def test_a_set_is_told_in_one_order_whatever_it_is_in() -> None:
    words = [f"word{i}" for i in range(20)]
    held = [np.array([set(order)], object) for order in (words, words[::-1])]
    assert canonical(held[0]) == canonical(held[1])
    assert stable_repr(Settings(1.0, frozenset(words))) == stable_repr(Settings(1.0, frozenset(words[::-1])))
