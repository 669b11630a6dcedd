"""Which runs search by a surrogate or choose by a second reward: plans, arms, and runs of earlier releases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.tiny import Redness, TinyModel, registered  # noqa: F401
from torch import Tensor

from rollflow import Plan
from rollflow.api.earlier import read_run
from rollflow.bench.run.experiment import Arm, Trial
from rollflow.bench.run.plans import plan_of
from rollflow.bench.run.presets import experiment_of
from rollflow.bench.suites.load import Item
from rollflow.cli import main
from rollflow.errors import BadSetting, NotDifferentiable
from rollflow.rewards import REWARDS, RewardModel

PROMPT = "a red square"


class SmoothRed(Redness):
    name = "red"
    differentiable = True
    held_out: ClassVar[tuple[str, ...]] = ()


class Tenths(Redness):
    """Redness in whole tenths."""

    name = "tenths"
    held_out: ClassVar[tuple[str, ...]] = ()
    surrogate: ClassVar[type[RewardModel]] = SmoothRed

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return (10 * super().score(samples, prompts)).floor() / 10


@pytest.fixture(autouse=True)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request.getfixturevalue("registered")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(REWARDS, "tenths", Tenths)


@pytest.mark.parametrize(
    ("options", "searched"),
    [
        ({}, True),
        ({"surrogate": False}, False),
        ({"as_published": True}, False),
        ({"as_published": True, "surrogate": True}, True),
        ({"reward": "caption", "surrogate": True}, False),
    ],
)
@pytest.mark.parametrize("given", ["name", "object"])
def test_a_plan_searches_by_the_surrogate(options: dict[str, Any], searched: bool, given: str) -> None:
    reward: Any = {"reward": "tenths" if given == "name" else Tenths()}
    plan = Plan(PROMPT, **{"method": "svdd", "nfe": 60} | reward | options)
    assert (plan.task.surrogate is not None) is searched
    assert plan.declared_objective.name == plan.task.objective.name
    assert plan.job().plan["surrogate"] == (True if searched else options.get("surrogate"))


def test_auto_chooses_for_what_it_will_see() -> None:
    plan = Plan(PROMPT, reward="tenths", nfe=60)
    assert "profile of 'red'" in plan.explanation[1]


def test_guidance_needs_a_gradient_of_what_it_follows() -> None:
    Plan(PROMPT, reward="tenths", nfe=60, method="svdd", guidance="dps")
    with pytest.raises(NotDifferentiable):
        Plan(PROMPT, reward="tenths", nfe=60, method="svdd", guidance="dps", surrogate=False)


def test_a_run_tells_both_scores_and_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["generate", PROMPT, "--reward", "tenths", "--method", "svdd", "--nfe", "60", "--out", "first", "--compare"]
    assert main(line) == 0
    content = json.loads(Path("first/result.json").read_text())
    assert content["reward"] == pytest.approx(int(10 * content["surrogate"]) / 10)
    shown = {row.split("  ")[0]: row for row in capsys.readouterr().out.splitlines()}
    assert shown["reward"].endswith(f" -> {content['reward']:.4g}")
    assert shown["searched by"].split() == ["searched", "by", "red", f"{content['surrogate']:.4g}"]
    assert main(["generate", "--from", "first", "--out", "again"]) == 0
    assert "to the last bit" in capsys.readouterr().out


def test_a_run_of_an_earlier_release_searched_by_the_reward(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["generate", PROMPT, "--reward", "tenths", "--no-surrogate", "--nfe", "60", "--out", "first", "-q"]) == 0
    )
    path = Path("first/result.json")
    content = json.loads(path.read_text())
    del content["plan"]["surrogate"]
    Path("earlier.json").write_text(json.dumps(content))
    assert read_run(Path("earlier.json")).record.plan["surrogate"] is False
    assert main(["generate", "--from", "earlier.json", "--out", "again"]) == 0
    assert "to the last bit" in capsys.readouterr().out
    assert "surrogate" not in json.loads(Path("again/result.json").read_text())


def test_arms_search_by_the_reward_unless_they_say_otherwise() -> None:
    item = Item(PROMPT)
    plans = [
        plan_of(Trial(arm, 0, item, 0), "scenes-base", "tenths", [], max_rows=8)
        for arm in (Arm("a", "svdd", 60, steps=10), Arm("a", "svdd", 60, steps=10, surrogate=True))
    ]
    assert [plan.task.surrogate is not None for plan in plans] == [False, True]
    assert "surrogate" not in Arm("a", "svdd", 60).to_json()
    assert Arm("a", "svdd", 60, surrogate=True).to_json()["surrogate"] is True


def test_a_preset_can_search_by_surrogates() -> None:
    """All its arms do but the plain sample, which does not search."""
    settings: dict[str, Any] = {"family": TinyModel.suite_family, "max_rows": 8}
    plain = experiment_of("table-quantity", "scenes-base", **settings)
    smooth = experiment_of("table-quantity", "scenes-base", surrogate=True, **settings)
    assert not any(arm.surrogate for arm in plain.arms)
    assert [arm.surrogate for arm in smooth.arms] == [arm.nfe is not None for arm in smooth.arms]
    assert "surrogate" not in json.dumps(plain.config())
    assert smooth.config() != plain.config()


def test_a_final_choice_is_no_judge() -> None:
    """It is left out of the rewards that are held out by default, and refused where it is asked for as one."""
    plan = Plan(PROMPT, reward="caption", choose_by="judge", shortlist=3, nfe=60, method="bon")
    assert plan.task.choice is not None
    assert (plan.task.choice.reward.name, plan.task.choice.shortlist, plan.task.held_out) == ("judge", 3, ())
    result = plan.run()
    assert result.chosen is not None
    assert result.spent.reward_calls <= plan.cost().reward_calls
    assert result.spent.decodes == plan.cost().decodes
    with pytest.raises(BadSetting, match="'judge' chooses the sample, so it cannot be held out"):
        Plan(PROMPT, reward="caption", choose_by="judge", held_out=["judge"], nfe=60)
    assert plan.baseline().task.choice is None
    assert plan.baseline().plan["choose_by"] is None


def test_arms_can_choose_by_a_second_reward() -> None:
    arm = Arm("a", "svdd", 60, steps=10, choose_by="caption", shortlist=4)
    plan = plan_of(Trial(arm, 0, Item(PROMPT), 0), "scenes-base", "judge", [], max_rows=8)
    assert plan.task.choice is not None
    assert (plan.task.choice.reward.name, plan.task.choice.shortlist) == ("caption", 4)
    assert arm.to_json()["shortlist"] == 4
    preset = experiment_of("table-quantity", "scenes-base", choose_by="caption", family="scenes", max_rows=8)
    assert {one.choose_by for one in preset.arms} == {None, "caption"}
