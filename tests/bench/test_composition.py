"""The compositional toy: exact baselines against sampling, and a tiny table against jobs run one by one."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.refusals import refused

from rollflow.bench.intervals import share
from rollflow.bench.probes import composition_table
from rollflow.bench.probes.arms import SDE, ProbeArm
from rollflow.bench.probes.composition import Composition, compositional_toy
from rollflow.bench.probes.composition_arms import composition_arms
from rollflow.bench.probes.composition_table import measure_composition, plain_trajectories, resumed, saved
from rollflow.bench.probes.outcomes import Measured
from rollflow.cli import main
from rollflow.engine import Job
from rollflow.errors import BadSetting, BudgetTooSmall
from rollflow.rewards.composition import GroupLikelihood, WrongGroups
from rollflow.search import OWN, BestOfN

OVERLAPPING = Composition(groups=3, modes=3, dimension=2, std=0.6, weight=0.6, width=0.5)
"""Modes that overlap, so that every term of the exact values matters."""


def drawn(setting: Composition, n: int) -> torch.Tensor:
    groups = [setting.mixture.sample(n, torch.Generator().manual_seed(g)) for g in range(setting.groups)]
    return torch.stack(groups, 1)


def test_exact_values_are_those_of_exact_samples() -> None:
    n, setting = 120_000, OVERLAPPING
    x0 = drawn(setting, n)
    groups, right = setting.right_groups(x0), setting.right(x0).double()
    p = float(groups.double().mean())
    assert abs(p - setting.group_probability) < 4 * math.sqrt(p * (1 - p) / groups.numel())
    assert abs(setting.group_probability - setting.weight) > 0.02  # so that the overlap was put to the test
    smooth = GroupLikelihood(setting.mixture.means, setting.width).score(x0, [])
    assert abs(float(smooth.mean()) - setting.expected_likelihood()) < 4 * float(smooth.std()) / n**0.5
    plateaued = WrongGroups(setting.mixture.means).score(x0, [])
    for of in (1, 4, 12):
        best = plateaued.view(-1, of).amax(1)
        assert abs(float(best.mean()) + setting.fewest_wrong(of)) < 4 * float(best.std()) / len(best) ** 0.5
        found, exact = float(right.view(-1, of).amax(1).mean()), setting.right_in_best_of(of)
        assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) * of / n)


def test_the_toy_is_right_by_the_weight_alone() -> None:
    """Its modes are 8 standard deviations from where they meet."""
    toy = compositional_toy()
    assert toy.group_probability == pytest.approx(0.3, abs=1e-12)
    assert toy.right_in_best_of(1) == pytest.approx(0.3**8, rel=1e-9)
    assert toy.right_in_best_of(80) == pytest.approx(1 - (1 - 0.3**8) ** 80, rel=1e-9)
    assert toy.right_in_best_of(80, group=0.5) == pytest.approx(1 - (1 - 0.5**8) ** 80, rel=1e-9)
    assert toy.fewest_wrong(1) == pytest.approx(8 * 0.7, rel=1e-9)
    assert toy.group_reward(smooth=True) == pytest.approx((8 / 3) / (2 * 0.09))
    assert toy.group_reward(smooth=False) == 1


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadSetting, match="weight of a composition"):
        Composition(weight=1.0)
    with pytest.raises(BadSetting, match="2 to 4 vertices; got 6"):
        Composition(modes=6)


def test_every_search_is_compared() -> None:
    for smooth in (True, False):
        arms = composition_arms(compositional_toy(), smooth=smooth)
        assert {type(arm.search(100)) for arm in arms.values()} >= set(OWN)


def test_a_search_without_an_arm_of_its_own_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Another(BestOfN):
        name = "another"

    from rollflow.search import SEARCHES

    monkeypatch.setitem(SEARCHES, "another", Another)
    arm = composition_arms(compositional_toy(), smooth=True)["another"]
    assert arm.sampler == SDE
    assert isinstance(arm.search(25), Another)


FEW = ("best of N", "SVDD, 1 stream", "beam, 1 parent, recombination")


@pytest.fixture
def few_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three arms and one that cannot run."""

    def few(setting: Composition, *, smooth: bool) -> dict[str, ProbeArm]:
        arms = composition_arms(setting, smooth=smooth)
        return {label: arms[label] for label in (*FEW, "search over paths, ODE")}

    monkeypatch.setattr(composition_table, "composition_arms", few)


@pytest.mark.usefixtures("few_arms")
@pytest.mark.slow
def test_cells_are_what_jobs_give_one_by_one(alone: Callable[[Job], Any]) -> None:
    setting, nfe, seeds = Composition(groups=2), 40, 3
    for reward, column in measure_composition(setting, nfe, seeds).items():
        task = setting.task(smooth=reward == "smooth")
        arms = composition_arms(setting, smooth=reward == "smooth")
        for label in FEW:
            arm = arms[label]
            runs = [alone(arm.job(task, nfe, seed)) for seed in range(seeds)]
            cell = column[label]
            assert isinstance(cell, Measured)
            assert cell.reward.mean == pytest.approx(np.mean([run.best.reward for run in runs]), rel=1e-12)
            nearest = [torch.cdist(run.best.x0, setting.mixture.means).argmin(1) for run in runs]
            assert cell.hits.mean == pytest.approx(np.mean([bool((of == 0).all()) for of in nearest]))
            assert cell.nfe == np.mean([run.spent.nfe for run in runs]) <= nfe


def test_trajectories_without_selection_are_independent_by_group() -> None:
    """The share of right trajectories is the product over groups, so that it may be taken from the share of groups."""
    plain = plain_trajectories(Composition(groups=2, weight=0.6), 2_000)
    for t in plain.values():
        p = t.group.mean
        assert t.nfe == 10
        assert t.group.low < p < t.group.high
        assert abs(p - 0.6) < 0.06
        assert abs(t.right.mean - p**2) < 4 * math.sqrt(p**2 * (1 - p**2) / 2_000)
        assert t.wrong == pytest.approx(2 * (1 - p))


@pytest.mark.usefixtures("few_arms")
def test_what_was_saved_is_resumed() -> None:
    known = share([0.0, 1.0, 1.0])
    cell = Measured(known, known, 24.0)
    column = {label: cell for label in FEW} | {"search over paths, ODE": BudgetTooSmall("paths", 9, 20)}
    table: composition_table.CellsByReward = {"smooth": {25: column}, "plateaued": {25: column}}
    text, toy = saved(table, 3).decode(), compositional_toy()
    again = resumed(text, toy, 3)
    assert again["smooth"][25]["best of N"] == cell
    assert str(again["plateaued"][25]["search over paths, ODE"]) == str(column["search over paths, ODE"])
    with pytest.raises(BadSetting, match="begun with 3 seeds, not 4"):
        resumed(text, toy, 4)
    with pytest.raises(BadSetting, match="other searches"):
        resumed(text.replace("best of N", "worst of N"), toy, 3)
    for other in ("[]", '{"form": "x"}', json.dumps(json.loads(text) | {"cells": {"smooth": {}}})):
        with pytest.raises(ValueError, match=r"it (is not of the format|has no cells)"):
            resumed(other, toy, 3)
    with pytest.raises(ValueError, match="cannot be read"):
        resumed(text.replace('"nfe"', '"of"'), toy, 3)


@pytest.mark.usefixtures("few_arms")
@pytest.mark.slow
def test_the_command_writes_the_table_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "composition", "--seeds", "2", "--trajectories", "30", "--out", str(tmp_path)]
    measured = list[int]()

    def stops(setting: Composition, nfe: int, seeds: int) -> Any:
        if nfe == 30:
            raise KeyboardInterrupt
        measured.append(nfe)
        return measure_composition(setting, nfe, seeds)

    with monkeypatch.context() as patched:
        patched.setattr(composition_table, "measure_composition", stops)
        assert main([*arguments, "--budgets", "15,30"]) != 0
    assert (tmp_path / "composition.part.json").exists()
    capsys.readouterr()
    assert main([*arguments, "--budgets", "15,30"]) == 2
    assert "add --resume" in refused(capsys)
    assert main([*arguments, "--budgets", "15,30", "--resume"]) == 0
    assert measured == [15]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["composition.md", "composition.png"]
    text = (tmp_path / "composition.md").read_text()
    assert "| search | 15 NFE | 30 NFE |" in text
    assert text.count("| search over paths, ODE | needs 18 |") == 5
    exact = 100 * (1 - (1 - 0.3**8) ** 3)
    assert f"| *exact: any of NFE / 10 samples* | {100 * 0.3**8:.3g} % | {exact:.3g} % |" in text
    assert "with probability 0.3^8 = 6.56e-05" in text
    with Image.open(io.BytesIO((tmp_path / "composition.png").read_bytes())) as image:
        assert image.size == (1680, 720)
    whole = tmp_path / "whole"
    assert main([*arguments[:-1], str(whole), "--budgets", "15,30"]) == 0
    assert (whole / "composition.md").read_text() == text
