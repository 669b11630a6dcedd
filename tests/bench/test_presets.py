"""Preset experiments: each can run, and its prompts are as described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rollflow.bench.run.experiment import Experiment, Trial
from rollflow.bench.run.hard_arms import hard_arms
from rollflow.bench.run.plans import check, costs_of, plan_of
from rollflow.bench.run.presets import PRESETS, experiment_of
from rollflow.bench.suites.difficulty import BANDS, plain_accuracy
from rollflow.bench.suites.load import DATA, Suite, load, save, shipped
from rollflow.bench.suites.suite import split_of
from rollflow.defaults import DEFAULT_MODEL
from rollflow.errors import BadSetting
from rollflow.models import MODELS
from rollflow.models.scenes import parse
from rollflow.rewards import REWARDS
from rollflow.rewards.wrappers.augmented import Augmented
from rollflow.search.beam import Beam


def made(name: str, *, quick: bool) -> Experiment:
    return experiment_of(name, DEFAULT_MODEL, family="scenes", quick=quick, max_rows=64)


PACKAGED = [name for name, preset in PRESETS.items() if preset.suite in shipped()]


@pytest.mark.filterwarnings("ignore:paths has too few steps:rollflow.errors.RollflowWarning")  # in the small forms
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.slow
def test_every_preset_fits_its_budget(name: str, quick: bool) -> None:
    """Every arm fits its budget, and all arms and their names are distinct."""
    experiment = made(name, quick=quick)
    costs = costs_of(experiment)
    jobs = len(experiment.suite.items) * experiment.seeds
    for arm in experiment.arms:
        assert 0 < costs[arm.name] <= jobs * (arm.nfe or arm.steps or 0)
        least = 0.6 if arm.interpolant == "vp" and arm.method in {"smc", "bfs"} else 0.8  # a particle costs 17 NFE
        used = arm.nfe is None or costs[arm.name] > least * jobs * arm.nfe or arm.nfe < 20
        assert used, f"{arm.name} leaves too much"
    assert len({repr(arm).replace(arm.name, "") for arm in experiment.arms}) == len(experiment.arms)
    assert quick == (experiment.config() != made(name, quick=False).config())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_what_there_is(name: str) -> None:
    preset = PRESETS[name]
    for reward in (preset.reward, preset.real_reward, *preset.held_out, *preset.real_held_out):
        REWARDS.find(reward)
    assert preset.reward not in preset.held_out
    assert preset.real_reward not in preset.real_held_out


@pytest.fixture
def hard(tmp_path: Path) -> str:
    """Path of a suite with eight hard prompts, and others."""
    suite = load("scenes-quantity")
    path = tmp_path / "eight.jsonl"
    save(replace(suite, name="eight", items=suite.items[:4] + suite.items[-8:]), path)
    return str(path)


@pytest.mark.parametrize("name", ["hard", "surrogates"])
def test_presets_of_hard_prompts_keep_to_the_protocol(name: str, hard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their prompts are hard and of the confirmation part, and their seeds are those that tuning never uses."""
    monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], suite=hard))
    experiment = made(name, quick=False)
    assert {(item.category, split_of(item.prompt)) for item in experiment.suite.items} == {("hard", "confirmation")}
    assert 0 < len(experiment.suite.items) < 8
    assert {trial.seed for trial in experiment.trials()} == {1000, 1001, 1002, 1003}
    assert (experiment.suite.name, experiment.config()["first_seed"]) == ("eight, hard, confirmation", 1000)
    tuned = experiment_of(
        name, DEFAULT_MODEL, family="scenes", split="tuning", category="easy", first_seed=0, seeds=1, max_rows=64
    )
    assert {(item.category, split_of(item.prompt)) for item in tuned.suite.items} <= {("easy", "tuning")}
    assert "first_seed" not in tuned.config()  # as before seeds could begin elsewhere


def test_a_suite_of_ones_own_is_taken_whole(hard: str) -> None:
    assert len(experiment_of("hard", DEFAULT_MODEL, family="scenes", suite=hard, max_rows=64).suite.items) == 12
    with pytest.raises(BadSetting, match="no category 'tricky'; its categories are easy, hard"):
        experiment_of("hard", DEFAULT_MODEL, family="scenes", suite=hard, category="tricky", max_rows=64)


def test_the_arms_of_the_hard_preset() -> None:
    """Every search has every budget, along both dynamics; names end in budgets; best of N goes up to the reference."""
    budgets: dict[str, list[int | None]] = {}
    for arm in hard_arms(500):
        label, _, budget = arm.name.rpartition(", ")
        assert arm.nfe is None or int(budget) == arm.nfe
        budgets.setdefault(label, []).append(arm.nfe)
    assert budgets.pop("BoN") == [50, 100, 200, 500]
    assert budgets.pop("auto") == [40, 50, 60, 100, 200]
    assert budgets.pop("") == [None]
    kinds = ("SVDD(1)", "SVDD(2)", "CoDe", "SMC", "BFS", "demon", "RBF")
    assert budgets.keys() == {f"{kind}, {path}" for kind in kinds for path in ("DDIM", "VP")} | {
        "RBF as published, VP",
        "RBF improved, VP",
        "auto, VP",
    }
    assert all(each == [50, 100, 200] for each in budgets.values())
    assert [arm.nfe for arm in hard_arms(100) if arm.name.startswith("auto, ")] == [40, 50, 60, 100, 50, 100]


def test_the_arms_of_the_surrogates_preset_differ_in_the_reward_alone(
    hard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the levels and children of the profile of ``caption``, whatever they search by."""
    monkeypatch.setitem(PRESETS, "surrogates", replace(PRESETS["surrogates"], suite=hard))
    experiment = made("surrogates", quick=False)
    check(experiment)
    _, *arms = experiment.arms
    item = experiment.suite.items[0]
    plans = [plan_of(Trial(arm, 0, item, 1000), DEFAULT_MODEL, "caption", ["judge"], max_rows=64) for arm in arms]
    assert [plan.declared_objective.name for plan in plans] == [
        "caption",
        *4 * ["augmented"],
        "count-smooth",
        "caption",
    ]
    views = [plan.declared_objective.count for plan in plans if isinstance(plan.declared_objective, Augmented)]
    assert views == [5, 2, 10, 10]
    assert {plan.explanation[1] for plan in plans} == {f"by the profile of 'caption' on {DEFAULT_MODEL} in the package"}
    searches = [plan.search for plan in plans]
    assert {replace(search, finalists=1) for search in searches if isinstance(search, Beam)} == {searches[0]}
    assert {plan.cost().nfe for plan in plans} == {60}
    assert plans[-1].declared_chooser is not None
    assert plans[-1].dynamics.finish_nfe == 0


def test_arms_are_chosen_by_patterns() -> None:
    experiment = replace(made("init", quick=True), arms=hard_arms(500))
    assert experiment.arms_named(()) == experiment.arms
    chosen = [arm.name for arm in experiment.arms_named(("auto, [0-9]*", "RBF as*", "BoN, 50"))]
    published = [f"RBF as published, VP, {nfe}" for nfe in (50, 100, 200)]
    assert chosen == ["BoN, 50", *published, *(f"auto, {nfe}" for nfe in (40, 50, 60, 100, 200))]
    with pytest.raises(BadSetting, match="no arm matches 'rbf"):
        experiment.arms_named(("BoN*", "rbf*"))


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


def test_the_suite_of_hard_prompts_is_new(graded: Suite) -> None:
    """It has prompts enough for the protocol, none of them in the suite that searches were designed on."""
    suite, told = load("scenes-hard"), json.loads((DATA / "scenes-hard.graded.json").read_text())
    hard = suite.only("hard")
    assert len(hard.split("confirmation").items) >= 100
    assert all(told["accuracy"][item.prompt] <= BANDS["hard"][1] for item in hard.items)
    assert all(parse(item.prompt).held_out for item in suite.items)
    assert not {item.prompt for item in suite.items} & {item.prompt for item in graded.items}


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
