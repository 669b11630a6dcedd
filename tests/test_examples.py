"""The scripts in examples/ do what the pages on them say."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rollflow.testing import ModelSuite, RewardSuite, SearchSuite

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
NUMBER = r"(-?\d+\.\d+)"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")


def script(name: str) -> ModuleType:
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the script prints."""
    script(name).main()
    return capsys.readouterr().out


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


@pytest.mark.slow
def test_many_prompts_each_within_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    output = run("many_prompts", capsys)
    assert numbers(r"(\d+) NFE", output) == [60, 60, 60]
    assert all(0 < reward <= 1 for reward in numbers(f"reward {NUMBER}", output))
    assert len(re.findall("held out {'judge': -?[0-9.]+}", output)) == 3


@pytest.mark.slow
def test_a_pipeline_is_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """One hundred NFE find a more colourful picture than ten."""
    output = run("diffusers_pipeline", capsys)
    plain, searched = numbers(f"colourfulness {NUMBER}", output)
    assert searched > plain
    assert output.count("picture (3, 16, 16)") == 2


@pytest.mark.slow
def test_gradients_of_the_own_reward_are_followed(capsys: pytest.CaptureFixture[str]) -> None:
    plain, guided = numbers(f"redness {NUMBER}", run("own_reward", capsys))
    assert guided > plain


def test_samples_of_the_own_model_lie_where_the_prompt_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Right of x = 1 or left of it; the pair's only sample is its point mass."""
    output = run("own_model", capsys)
    left, right = numbers(f"reward {NUMBER}", output)
    assert left < 1 < right
    assert "a pair of a velocity and a shape is also a model: [0.5, 0.5]" in output


@pytest.mark.slow
def test_the_own_search_keeps_to_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    output = run("own_search", capsys)
    assert numbers(r"for (\d+) NFE", output) == [80, 80]


def test_the_worse_half_is_replaced_by_the_better() -> None:
    """Of an odd number the middle one stays once."""
    reward = torch.tensor([0.0, 4.0, 1.0, 3.0, 2.0], dtype=torch.float64)
    assert script("own_search").halved(reward).tolist() == [1, 1, 3, 3, 4]


class TestHalving(SearchSuite):
    @pytest.fixture
    def search(self) -> Any:
        return script("own_search").Halving()


class TestTwoModes(ModelSuite):
    @pytest.fixture
    def model(self) -> Any:
        return script("own_model").TwoModes()

    @pytest.fixture
    def prompts(self) -> tuple[str, str]:
        return "left", "right"

    @pytest.fixture
    def bad_prompt(self) -> str:
        return "up"


class TestRedness(RewardSuite):
    @pytest.fixture
    def reward(self) -> Any:
        return script("own_reward").Redness()

    @pytest.fixture
    def samples(self) -> torch.Tensor:
        return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def prompts(self) -> list[str]:
        return ["one star", "two stars", "one star", "a cat"]


def test_the_page_shows_every_script() -> None:
    page = (ROOT / "docs/examples.md").read_text()
    assert sorted(re.findall(r'--8<-- "examples/(\w+)\.py"', page)) == SCRIPTS
    notebooks = sorted(path.name for path in (ROOT / "examples/notebooks").glob("*.ipynb"))
    assert sorted(re.findall(r"notebooks/(\w+\.ipynb)", page)) == sorted(notebooks)
