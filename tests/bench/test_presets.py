"""Preset experiments: each can run, and its prompts are as described."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rollflow.bench.run.experiment import Experiment
from rollflow.bench.run.plans import costs_of
from rollflow.bench.run.presets import PRESETS, experiment_of
from rollflow.bench.suites.difficulty import BANDS, plain_accuracy
from rollflow.bench.suites.load import DATA, Suite, load
from rollflow.defaults import DEFAULT_MODEL
from rollflow.models import MODELS
from rollflow.models.scenes import parse
from rollflow.rewards import REWARDS


def made(name: str, *, quick: bool) -> Experiment:
    return experiment_of(name, DEFAULT_MODEL, family="scenes", quick=quick, max_rows=64)


@pytest.mark.filterwarnings("ignore:paths has too few steps:rollflow.errors.RollflowWarning")  # in the small forms
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.slow
def test_every_preset_fits_its_budget(name: str, quick: bool) -> None:
    """Every arm fits its budget, and all arms and their names are distinct."""
    experiment = made(name, quick=quick)
    costs = costs_of(experiment)
    jobs = len(experiment.suite.items) * experiment.seeds
    for arm in experiment.arms:
        assert 0 < costs[arm.name] <= jobs * (arm.nfe or arm.steps or 0)
        assert arm.nfe is None or costs[arm.name] > 0.8 * jobs * arm.nfe or arm.nfe < 20, f"{arm.name} leaves too much"
    assert len({repr(arm).replace(arm.name, "") for arm in experiment.arms}) == len(experiment.arms)
    assert quick == (experiment.config() != made(name, quick=False).config())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_what_there_is(name: str) -> None:
    preset = PRESETS[name]
    for reward in (preset.reward, preset.real_reward, *preset.held_out, *preset.real_held_out):
        REWARDS.find(reward)
    assert preset.reward not in preset.held_out
    assert preset.real_reward not in preset.real_held_out


@pytest.fixture(scope="module")
def graded() -> Suite:
    return load("scenes-quantity")


def test_the_graded_suite_is_held_out_and_in_its_bands(graded: Suite) -> None:
    """Difficulty agrees with the recorded accuracy of the default model's plain samples."""
    told = json.loads((DATA / "scenes-quantity.graded.json").read_text())
    assert told["model"] == DEFAULT_MODEL
    assert list(dict.fromkeys(item.category for item in graded.items)) == list(BANDS)
    for tier, (low, high) in BANDS.items():
        prompts = [item.prompt for item in graded.items if item.category == tier]
        assert len(prompts) >= 60
        assert all(low <= told["accuracy"][prompt] <= high for prompt in prompts)
        assert all(parse(prompt).held_out for prompt in prompts)


@pytest.mark.parametrize(
    ("samples", "every", "rows"),
    [pytest.param(5, 1, 100, marks=pytest.mark.exhaustive), pytest.param(1, 4, 15, marks=pytest.mark.slow)],
    ids=["whole", "a twentieth"],
)
def test_the_graded_suite_stays_in_its_bands(graded: Suite, samples: int, every: int, rows: int) -> None:
    """On other seeds, the mean accuracy of each difficulty is in its band, up to three standard errors."""
    model, judge, seeds = MODELS.find(DEFAULT_MODEL)(), REWARDS.find("judge")(), range(samples)
    for tier, (low, high) in BANDS.items():
        prompts = [item.prompt for item in graded.items if item.category == tier][::every]
        right = plain_accuracy(model, judge, prompts, seeds=seeds, steps=10, max_rows=rows)
        mean, total = float(np.mean([np.mean(values) for values in right.values()])), len(prompts) * len(seeds)
        below, above = (3 * (bound * (1 - bound) / total) ** 0.5 for bound in (low, high))
        assert low - below <= mean <= high + above, tier
