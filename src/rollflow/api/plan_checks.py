"""Checks of a plan's options before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar, cast

from rollflow import checks
from rollflow.checks import MOST_NFE, MOST_SEED, MOST_STEPS
from rollflow.errors import BadSetting
from rollflow.models import FlowModel, Source, as_model
from rollflow.options import Options, options_of
from rollflow.rewards import RewardModel, as_reward
from rollflow.rewards.checks import check_names, check_reward, check_scorable
from rollflow.rewards.components import components

T = TypeVar("T")


def checked(plan: Options) -> dict[str, Any]:
    """Check types and ranges of all options, and return those that are kept in another form than they were given.

    Raises:
        BadSetting: If an option has the wrong type or is out of range.
    """
    if isinstance(plan.prompt, list | tuple):
        raise BadSetting("a plan has one prompt; give a list of prompts to rollflow.generate")
    checks.text("the prompt", plan.prompt, what="a string that describes the sample")
    kept: dict[str, Any] = {"model": _chosen("model", as_model(plan.model), FlowModel, Source)}
    for name, (one, option) in options_of(type(plan)).items():
        registry = option.find_registry()
        if registry is None or name in ("model", "held_out"):
            continue
        kinds = [registry.base, *([NoneType] if one.default is None else []), *([bool] if option.words else [])]
        value = _chosen(name, getattr(plan, name), *kinds)
        kept[name] = option.words.get(value, value) if isinstance(value, str) else value
    if plan.held_out is not None:
        kept["held_out"] = checks.each(
            "held_out", plan.held_out, lambda name, value: _chosen(name, value, RewardModel), "a list of rewards"
        )
    if plan.finish is not None:
        checks.flag("finish", plan.finish)
    checks.flag("as_published", plan.as_published)
    checks.flag("best_seen", plan.best_seen)
    if plan.steps is not None:
        kept["steps"] = checks.whole("steps", plan.steps, at_least=1, at_most=MOST_STEPS)
    return {
        **kept,
        "nfe": checks.whole("nfe", plan.nfe, at_most=MOST_NFE),
        "seed": checked_seed(plan.seed),
        "steps": plan.steps
        if plan.steps is None
        else checks.whole("steps", plan.steps, at_least=1, at_most=MOST_STEPS),
        "shortlist": checks.whole("shortlist", plan.shortlist, at_least=1),
        "max_rows": checks.whole("max_rows", plan.max_rows, at_least=1),
        "max_grad_rows": checks.whole("max_grad_rows", plan.max_grad_rows, at_least=1),
    }


def checked_seed(seed: int) -> int:
    """Return a seed as an ``int``; raise a BadSetting if it has the wrong type or is out of range."""
    return checks.whole("seed", seed, at_least=0, at_most=MOST_SEED)


def _chosen(name: str, value: T, *kinds: type[Any]) -> T:
    """Return the value, a function as a reward; raise a BadSetting if it is no name or object of one of the classes."""
    others = ["a pipeline of diffusers", "a pair (velocity, shape)"] if FlowModel in kinds else []
    if RewardModel in kinds:
        value, others = cast(T, as_reward(value)), ["a function f(images, prompts)"]
    objects = (checks.with_article(kind.__name__) for kind in kinds if kind is not NoneType)
    what = " or ".join(["a name", *objects, *others])
    checks.instance(name, value, str, *kinds, what=what)
    if isinstance(value, RewardModel):
        check_reward(name, value)
    return value


def check_judges(judges: Sequence[RewardModel | type[RewardModel]], seen: Mapping[str, str]) -> None:
    """Raise a BadSetting if held-out rewards share a name, have a part in the sample, or cannot score it by itself.

    Args:
        judges: The held-out rewards.
        seen: Names of the rewards that have a part in it, each with the option that gave it the part.
    """
    check_names("held-out reward", [judge for judge in judges if not judge.remote])
    for judge in judges:
        for one in components(judge):
            if one.name in seen:
                does = "chooses the sample" if seen[one.name] == "choose_by" else "is seen by the search"
                flag = f"--{seen[one.name].replace('_', '-')}"
                raise BadSetting(f"'{one.name}' {does}, so it cannot be held out; give another --held-out or {flag}")
        if judge.relative:
            raise BadSetting(
                f"'{judge.name}' compares samples with earlier ones, so it cannot be a held-out reward, which scores a "
                "single sample"
            )


def check_prompt(
    prompt: str,
    model: FlowModel | type[FlowModel] | Source,
    rewards: Iterable[RewardModel | type[RewardModel]],
) -> None:
    """Raise the error of the run if the model or a reward cannot read the prompt, or lacks a package."""
    if not isinstance(model, Source):
        model.check_prompt(prompt)
    for reward in rewards:
        check_scorable(reward, prompt)
