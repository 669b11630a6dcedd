"""Which runs search by a surrogate or choose by a second reward: plans, arms, and runs of earlier releases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.tiny import Judge, Redness, TinyModel, registered  # noqa: F401
from torch import Tensor

from rollflow import Plan
from rollflow.api.earlier import read_run
from rollflow.bench.run.experiment import Arm, Experiment, Trial
from rollflow.bench.run.plans import check, job_of, plan_of
from rollflow.bench.run.presets import experiment_of
from rollflow.bench.suites.load import Item, Suite
from rollflow.cli import main
from rollflow.errors import BadSetting, NotDifferentiable, RollflowError
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.mixing import Minimum
from rollflow.rewards.wrappers.augmented import Augmented
from rollflow.search.beam import Beam

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


class Counted(Redness):
    """Redness that counts the samples it scored."""

    name = "counted"
    samples = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.samples += len(samples)
        return super().score(samples, prompts)


class Choosy(Redness):
    name = "choosy"

    @classmethod
    def check_prompt(cls, prompt: str) -> None:
        if "dragon" in prompt:
            raise BadSetting("no red dragons")


@pytest.fixture(autouse=True)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request.getfixturevalue("registered")
    monkeypatch.chdir(tmp_path)
    for kind in (Tenths, SmoothRed, Augmented, Minimum):
        monkeypatch.setitem(REWARDS, kind.name, kind)


@pytest.mark.parametrize(
    ("options", "searched"),
    [
        ({}, True),
        ({"surrogate": False}, False),
        ({"surrogate": "none"}, False),
        ({"as_published": True}, False),
        ({"as_published": True, "surrogate": True}, True),
        ({"as_published": True, "surrogate": "own"}, True),
        ({"reward": "caption", "surrogate": True}, False),
    ],
)
@pytest.mark.parametrize("given", ["name", "object"])
def test_a_plan_searches_by_the_surrogate(options: dict[str, Any], searched: bool, given: str) -> None:
    reward: Any = {"reward": "tenths" if given == "name" else Tenths()}
    plan = Plan(PROMPT, **{"method": "svdd", "nfe": 60} | reward | options)
    assert (plan.task.surrogate is not None) is searched
    assert plan.declared_objective.name == plan.task.objective.name
    assert plan.job().plan["surrogate"] is (True if searched else plan.surrogate)
    assert plan.surrogate in (None, True, False)


@pytest.mark.parametrize("given", ["name", "object"])
@pytest.mark.parametrize("published", [False, True])
def test_a_plan_searches_by_the_reward_that_is_named(given: str, published: bool) -> None:
    """Even as published, or if the task's reward has a surrogate of its own."""
    text = "augmented(reward=caption, shift=1)"
    surrogate: Any = text if given == "name" else Augmented(Redness(), shift=1)
    plan = Plan(PROMPT, reward="tenths", surrogate=surrogate, as_published=published, method="svdd", nfe=60)
    assert plan.task.objective.identity == "augmented(caption, 1, True, 0.0)"
    assert (plan.task.reward.name, plan.declared_objective.name) == ("tenths", "augmented")
    assert plan.job().plan["surrogate"] == text
    assert Plan.from_json(plan.to_json()).task.objective.identity == plan.task.objective.identity


def test_wrong_surrogates_are_refused() -> None:
    wrong: Any
    for wrong, message in ((3, "surrogate must be a name or a RewardModel"), ("smoth", "unknown reward 'smoth'")):
        with pytest.raises(RollflowError, match=message):
            Plan(PROMPT, reward="tenths", surrogate=wrong, nfe=60)
    with pytest.raises(BadSetting, match="no red dragons"):
        Plan("a red dragon", reward="tenths", surrogate=Choosy(), nfe=60)


def test_what_a_search_sees_is_not_held_out() -> None:
    """It is left out of the default, and refused where it is asked for; parts of mixtures and wrapped ones are seen."""
    plan = Plan(PROMPT, reward="caption", surrogate="augmented(reward=judge)", nfe=60, method="bon")
    assert plan.judges == []
    assert Plan(PROMPT, reward="caption", surrogate="augmented(reward=red)", nfe=60).judges == [Judge]
    seen = "'judge' is seen by the search, so it cannot be held out; give another --held-out or --surrogate"
    for surrogate in ("judge", "augmented(reward=judge)", "minimum(parts=red;augmented(reward=judge))"):
        with pytest.raises(BadSetting, match=seen):
            Plan(PROMPT, reward="caption", surrogate=surrogate, held_out=["judge"], nfe=60)
    with pytest.raises(BadSetting, match="'judge' chooses the sample"):
        Plan(PROMPT, reward="caption", choose_by="augmented(reward=judge)", held_out=["judge"], nfe=60)
    held_out = ["augmented(reward=judge)"]  # shares a name with the surrogate, and nothing else
    Plan(PROMPT, reward="tenths", surrogate="augmented(reward=caption)", held_out=held_out, nfe=60)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"reward": "tenths"}, "by the default curve: there is no profile of 'red' on scenes-base"),
        ({"reward": "caption"}, "by the profile of 'caption' on scenes-base"),
        (
            {"surrogate": "augmented(reward=augmented(reward=caption))", "reward": "tenths"},
            "by the profile of 'caption'",
        ),
        ({"surrogate": "red", "reward": "caption"}, "by the profile of 'caption'"),
        ({"surrogate": "minimum(parts=caption;red)", "reward": "tenths"}, "there is no profile of 'minimum'"),
    ],
)
def test_auto_chooses_for_what_it_will_see(options: dict[str, Any], why: str) -> None:
    """Else for what that wraps, else for what is reported."""
    plan = Plan(PROMPT, nfe=60, **options)
    assert why in plan.explanation[1]
    assert plan.job().search == plan.search
    assert isinstance(plan.search, Beam)
    assert (plan.search.children is not None) is ("by the profile" in why)


@pytest.mark.parametrize("paid", [False, True])
def test_auto_has_several_candidates_where_finishing_costs_nfe(paid: bool) -> None:
    """Where there is a final choice, and not more than that chooses among; at its own levels finishing is free."""
    options: dict[str, Any] = {"reward": "caption", "held_out": [], "nfe": 60}
    options |= {"interpolant": "vp", "grid": "uniform", "steps": 6} if paid else {}
    plain = Plan(PROMPT, **options)
    assert "finalists" not in plain.explanation[0]
    finalists = {}
    for shortlist in (1, 3, 8):
        plan = Plan(PROMPT, choose_by="red", shortlist=shortlist, **options)
        assert isinstance(plan.search, Beam)
        assert plan.job().search == plan.search
        finalists[shortlist] = plan.search.finalists
    assert finalists == {1: 1, 3: 3, 8: 4}
    assert plan.explanation[0].endswith(", up to 4 finalists to choose among")
    assert (plan.dynamics.finish_nfe > 0) is paid
    result = plan.run()
    assert result.chosen is not None
    assert result.spent.nfe <= 60
    alone = Plan(PROMPT, choose_by="red", method="beam", **options).run()
    assert (alone.chosen is None) is paid


@pytest.mark.parametrize(("settings", "views"), [({}, 10), ({"mirror": False}, 5), ({"shift": 0}, 2)])
def test_views_cost_no_nfe(settings: dict[str, Any], views: int) -> None:
    """The account has one reward call for each sample that the search scored, as without views."""
    seen, inner = Counted(), Counted()
    options: dict[str, Any] = {"method": "beam", "nfe": 40, "held_out": []}
    plain = Plan(PROMPT, reward=seen, **options).run()
    result = Plan(PROMPT, reward=Redness(), surrogate=Augmented(inner, **settings), **options).run()
    assert (result.spent.nfe, result.spent.reward_calls) == (plain.spent.nfe, plain.spent.reward_calls) == (40, 40)
    assert result.spent.decodes == plain.spent.decodes
    tried = 1 + 2  # samples of the trial before the search, which no account has
    assert (seen.samples, inner.samples) == (40 + tried, views * (40 + tried))


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


def test_a_run_by_a_named_reward_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["generate", PROMPT, "--surrogate", "augmented(reward=red)", "--method", "svdd", "--nfe", "60"]
    assert main([*line, "--out", "first"]) == 0
    content = json.loads(Path("first/result.json").read_text())
    assert content["plan"]["surrogate"] == "augmented(reward=red)"
    assert (content["reward_name"], content["surrogate_name"]) == ("caption", "augmented")
    shown = {row.split("  ")[0]: row for row in capsys.readouterr().out.splitlines()}
    assert shown["searched by"].split() == ["searched", "by", "augmented", f"{content['surrogate']:.4g}"]
    assert main(["generate", "--from", "first", "--out", "again"]) == 0
    assert "to the last bit" in capsys.readouterr().out
    assert main(["generate", "--from", "first", "--surrogate", "none", "--out", "other", "-q"]) == 0
    other = json.loads(Path("other/result.json").read_text())
    assert (other["plan"]["surrogate"], "surrogate" in other) == (False, False)


def test_a_run_of_an_earlier_release_searched_by_the_reward(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["generate", PROMPT, "--reward", "tenths", "--surrogate", "none", "--nfe", "60", "--out", "first", "-q"])
        == 0
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
        for arm in [Arm("a", "svdd", 60, steps=10, surrogate=said) for said in (False, True, "judge")]
    ]
    assert [plan.task.objective.name for plan in plans] == ["tenths", "red", "judge"]
    assert {plan.task.reward.name for plan in plans} == {"tenths"}
    assert "surrogate" not in Arm("a", "svdd", 60).to_json()
    assert Arm("a", "svdd", 60, surrogate="none") == Arm("a", "svdd", 60)
    assert Arm("a", "svdd", 60, surrogate="own").to_json()["surrogate"] is True
    surrogate: Any = Augmented(Redness())
    assert Arm("a", "svdd", 60, surrogate=surrogate).to_json()["surrogate"] == "augmented(reward=caption)"


def test_jobs_of_all_arms_share_the_calls_of_a_named_reward() -> None:
    """It is loaded once, when the first job is made, and not for the costs."""
    arms = [Arm(name, "svdd", 60, surrogate="red", choose_by="augmented(reward=red)") for name in "ab"]
    tasks = [
        job_of(Trial(arm, 0, Item(PROMPT), seed), TinyModel(), Tenths(), [], max_rows=8).task
        for arm in arms
        for seed in (0, 1)
    ]
    assert (
        len({id(task.surrogate) for task in tasks})
        == len({id(task.choice and task.choice.reward) for task in tasks})
        == 1
    )
    trial = Trial(arms[0], 0, Item(PROMPT), 0)
    assert plan_of(trial, "scenes-base", "tenths", [], max_rows=8).surrogate == "red"


def test_an_experiment_checks_what_its_arms_search_by() -> None:
    suite = Suite("prompts", "1", (Item(PROMPT), Item("a red dragon")))
    arm = Arm("a", "svdd", 60, surrogate=f"{__name__}:Choosy")
    with pytest.raises(BadSetting, match="'choosy' cannot read the prompt 'a red dragon': no red dragons"):
        check(Experiment("e", "scenes-turbo", "tenths", (), suite, (arm,), 1, 8))


def test_a_preset_can_search_by_surrogates() -> None:
    """All its arms do but the plain sample, which does not search."""
    settings: dict[str, Any] = {"family": TinyModel.suite_family, "max_rows": 8}
    plain = experiment_of("table-quantity", "scenes-base", **settings)
    smooth = experiment_of("table-quantity", "scenes-base", surrogate=True, **settings)
    assert not any(arm.surrogate for arm in plain.arms)
    assert [arm.surrogate for arm in smooth.arms] == [arm.nfe is not None for arm in smooth.arms]
    assert "surrogate" not in json.dumps(plain.config())
    assert smooth.config() != plain.config()
    named = experiment_of("table-quantity", "scenes-base", surrogate="augmented(reward=red)", **settings)
    assert {arm.surrogate for arm in named.arms} == {False, "augmented(reward=red)"}


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
