"""Options are declared once: whatever reads or shows them knows them all."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from support.tiny import registered  # noqa: F401
from typer.testing import CliRunner

import rollflow.dynamics.grids
import rollflow.dynamics.guidance
import rollflow.dynamics.interpolants
import rollflow.dynamics.kernels
import rollflow.dynamics.lookahead
import rollflow.models
import rollflow.rewards
import rollflow.search
from rollflow.api import Plan, generate
from rollflow.bench.run.experiment import Arm, Trial
from rollflow.bench.run.plans import plan_of
from rollflow.bench.suites.suite import Item
from rollflow.cli.generate import command
from rollflow.cli.options import with_plan_options
from rollflow.dynamics.kernels import DDIM
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.errors import BadSetting, UnknownOption
from rollflow.options import Options, PlanOptions, SamplingOptions, option, options_of
from rollflow.sampler import Sampler

DECLARED = list(options_of())


@dataclass(frozen=True)
class Flavoured(Plan):
    """A plan with one more option."""

    flavour: str | None = field(default=None, metadata=option("Flavour of the sample.", unset="by taste"), kw_only=True)


@dataclass(frozen=True)
class FlavouredArm(Arm):
    """An arm with one more option."""

    flavour: str | None = field(default=None, metadata=option("Flavour of the sample."), kw_only=True)


def types_of(kind: Any) -> dict[str, Any]:
    """Types of the fields of a class, resolved where they are not imported."""
    modules = (
        *(rollflow.dynamics.grids, rollflow.dynamics.guidance, rollflow.dynamics.interpolants),
        *(rollflow.dynamics.kernels, rollflow.dynamics.lookahead, rollflow.models, rollflow.rewards, rollflow.search),
    )
    names = {name: value for module in modules for name, value in vars(module).items()}
    return {name: hint for name, hint in get_type_hints(kind, localns=names).items() if name in DECLARED}


def test_every_field_but_the_prompt_is_an_option() -> None:
    assert {one.name for one in fields(Plan)} == {"prompt", *DECLARED}


def test_type_checkers_are_told_the_same() -> None:
    assert types_of(PlanOptions) == types_of(Options)
    assert list(types_of(Options)) != []


def test_generate_takes_them_all_and_shows_it() -> None:
    shown = inspect.signature(generate).parameters
    assert set(shown) == {"prompt", "observers", *DECLARED}
    assert all(shown[one.name].default == one.default for one in fields(Plan) if one.name != "prompt")
    assert all(name in str(inspect.getdoc(generate)) for name in shown)
    with pytest.raises(TypeError, match="sede"):
        generate("a red square", sede=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("call", [generate, Plan])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kernal": "ddim"},
            r"unknown option 'kernal'; did you mean 'kernel'\? known: as_published, best_seen, choose_by, finish, ",
        ),
        (
            {"pipeline_arg": ["height=64"]},
            r"setting of PipelineSource: model=PipelineSource\('owner/name', arguments=...",
        ),
        ({"few_step": True}, r"few_step is not an option of a plan, but .* distilled=...\)"),
        ({"ask": ["cats=3"]}, r"ask is not an option of a plan, but said by the prompt: Prompt\(text, \{'cat': 3\}\)"),
        ({"compare": True}, r"an argument of Plan.run: Plan\(prompt, ...\).run\(out='folder', compare=True\)"),
    ],
)
def test_what_is_no_option_is_refused_with_what_was_meant(call: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOption, match=message):
        call("a red square", **options)


def test_what_the_command_line_takes_is_an_option_or_python_says_where_it_goes() -> None:
    """All but what a command line alone needs: where its options come from, and what it prints."""
    shown = inspect.signature(command).parameters
    only = {"context", "settings", "source", "trust", "dry_run", "as_json", "quiet"}
    others = set(shown) - {"prompt", *DECLARED} - only
    assert len(others) == 13
    for name in others:
        given: Any = {name: None}
        with pytest.raises(UnknownOption, match=f"{name} is not an option of a plan, but"):
            Plan("a red square", **given)


def test_each_is_described_to_whoever_reads_the_code_and_the_help() -> None:
    described = str(inspect.getdoc(Plan)).partition("Args:")[2]
    for name, (_, declared) in options_of().items():
        assert f"\n    {name}: " in described
        assert declared.help[0].isupper()
        assert declared.help.endswith(".")


def test_an_arm_has_all_that_say_how_particles_move() -> None:
    sampling = {one.name for one in fields(SamplingOptions)}
    own = {"name", "method", "nfe", "surrogate", "choose_by", "shortlist", "pool_until"}
    assert {one.name for one in fields(Arm)} == own | sampling
    assert {one.name for one in fields(Sampler)} == sampling
    values: dict[str, Any] = {
        **{"interpolant": "cosine", "kernel": "ddim(eta=0.5)", "steps": 4, "grid": "shifted(shift=2.0)"},
        **{"lookahead": "ode(steps=3)", "finish": False, "guidance": None, "best_seen": True},
    }
    assert values.keys() == sampling
    trial = Trial(Arm("ours", "svdd", 60, **values), 0, Item("a red square"), 0)
    plan = plan_of(trial, "scenes-base", "caption", [], max_rows=8)
    assert {name: getattr(plan, name) for name in sampling} == values
    assert plan.max_rows == 8


def test_an_arm_holds_texts() -> None:
    arm = Arm("ours", kernel=DDIM(0.5), lookahead=ODELookahead(3))
    assert arm == Arm("ours", kernel="ddim(eta=0.5)", lookahead="ode(steps=3)")

    class Mine(DDIM):
        """No registry holds it."""

    with pytest.raises(BadSetting, match="is not a registered kernel"):
        Arm("ours", kernel=Mine())


def test_later_options_do_not_change_the_ids_of_jobs() -> None:
    """The id of a job that a release without look-aheads of arms wrote."""
    trial = Trial(
        Arm("plain", steps=10), 0, Item("one flower to the left of one donut on night background", "left of"), 0
    )
    assert trial.id == "a49eb0a0aa7d8980"
    other = Trial(Arm("plain", steps=10, lookahead="ode"), 0, trial.item, 0)
    assert other.id != trial.id
    assert other.arm.to_json() == trial.arm.to_json() | {"lookahead": "ode"}


def test_one_field_more_is_an_option_everywhere(tmp_path: Path) -> None:
    """On the command line, in the plan, in the record of its job and in ``result.json``; and of arms."""
    app, seen = typer.Typer(rich_markup_mode=None), list[Any]()

    def command(prompt: str, **options: Any) -> None:
        seen.append(options)

    app.command()(with_plan_options(command, Flavoured))
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "--flavour" in shown
    assert "[default: by taste]" in " ".join(shown.split())
    assert CliRunner().invoke(app, ["x", "--flavour", "sweet"]).exit_code == 0
    assert seen[0]["flavour"] == "sweet"

    plan = Flavoured("a red square", nfe=90, flavour="sweet")
    assert Flavoured.from_json(plan.to_json()) == plan
    result = plan.run()
    assert result.record().to_json()["plan"]["flavour"] == "sweet"
    result.save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["plan"]["flavour"] == "sweet"
    assert FlavouredArm("ours", flavour="sweet").to_json()["flavour"] == "sweet"
