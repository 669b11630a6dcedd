"""The plan that a command line describes, with settings of its choices: ``--kernel ddim --set kernel.eta=0.5``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rollflow import checks
from rollflow.api import Plan, described
from rollflow.api.earlier import EarlierRun
from rollflow.errors import BadSetting, unknown
from rollflow.files.atomic import check_outside
from rollflow.models import PipelineSource, find_model
from rollflow.models.diffusers import read_argument
from rollflow.options import options_of
from rollflow.prompts import Prompt, read_ask
from rollflow.registry import Registry, assignment


class Given(NamedTuple):
    """What stands on the command line of a run.

    Args:
        prompt: Prompt; None if there is none.
        ask: ``THING=COUNT`` each.
        options: Options of the plan by name; what the user left open is absent.
        settings: ``NAME=VALUE`` of the method, ``CHOICE.NAME=VALUE`` of any other choice.
        arguments: ``NAME=VALUE`` of a pipeline's call.
        loading: Settings of ``PipelineSource``; None if left open.
    """

    prompt: str | None
    ask: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}
    settings: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    loading: Mapping[str, Any] = {}


def plan_of(given: Given, earlier: EarlierRun | None = None, *, trusted: bool = False) -> Plan:
    """The plan of a command line.

    Args:
        given: What stands on it.
        earlier: Run to repeat, whose options are taken where the command line leaves them open.
        trusted: Whether the earlier run's options may name modules, files, models and servers.

    Raises:
        RollflowError: On bad input, as ``Plan``, and as ``described.from_json``.
    """
    options: dict[str, Any] = {} if given.prompt is None else {"prompt": given.prompt}
    options |= given.options
    if earlier is not None:
        options = _repeated(given, options, earlier, trusted) | options
    if "prompt" not in options:
        raise BadSetting("missing argument 'PROMPT'; give a prompt, or --from the result.json of a run")
    if given.ask:
        options["prompt"] = Prompt(str(options["prompt"]), read_ask([*given.ask]))
    declared = options_of()
    model = options.get("model", declared["model"][0].default)
    options["model"] = pipeline(model, given.arguments, **given.loading)
    defaults = {name: field.default for name, (field, _) in declared.items()}
    options |= chosen(given.settings, defaults | options, updated=options.keys() - given.options.keys())
    return Plan(**options)


def _repeated(given: Given, options: Mapping[str, Any], earlier: EarlierRun, trusted: bool) -> dict[str, Any]:
    """The options of an earlier run that the command line leaves open."""
    content = {name: value for name, value in earlier.record.plan.items() if name not in options}
    model = content.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("arguments"), Mapping):
        replaced = {assignment(text)[0] for text in given.arguments}
        kept = {name: value for name, value in model["arguments"].items() if name not in replaced}
        content["model"] = {**model, "arguments": kept}
    found = described.from_json(Plan, content, where=str(earlier.path), trusted=trusted)
    source = found.get("model")
    if isinstance(source, PipelineSource) and earlier.record.device == "cpu" and source.device == "auto":
        found["model"] = replace(source, device="cpu")
    return found


def chosen(settings: Iterable[str], choices: Mapping[str, Any], *, updated: Collection[str] = ()) -> dict[str, Any]:
    """Objects of the choices that have settings on the command line.

    Args:
        settings: ``NAME=VALUE`` of the method, ``CHOICE.NAME=VALUE`` of any other.
        choices: Text of each choice; None if it is left open.
        updated: Choices of an earlier run, of whose settings those given replace the ones of the same name.

    Raises:
        UnknownName: On an unknown name, choice or setting.
        BadSetting: On a value that cannot be read, or a setting of what was left open.
    """
    registries = {name: option.find_registry() for name, (_, option) in options_of().items() if option.settings}
    given: dict[str, dict[str, str]] = {}
    for text in settings:
        name, value = assignment(text)
        choice, dot, setting = name.rpartition(".")
        if dot and choice not in registries:
            raise unknown("choice", choice, registries)
        of_choice = given.setdefault(choice or "method", {})
        if setting in of_choice:
            raise BadSetting(f"--set gives {name} twice; set it once")
        of_choice[setting] = value
    made: dict[str, Any] = {}
    for choice, of_choice in given.items():
        registry: Registry[Any] | None = registries[choice]
        text, before = choices[choice], dict[str, str]()
        if text is None:
            raise BadSetting(f"{choice}.{next(iter(of_choice))} is set, but which {choice} is not: add --{choice}")
        assert registry is not None
        if choice in updated:
            text, before = registry.split(text)
        made[choice] = registry.make(text, before | of_choice)
    return made


def check_output(folder: Path) -> None:
    """Raise a BadSetting if a folder could not be made or written to, or is the installed package's; makes nothing."""
    check_outside(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        what = "a link that leads nowhere" if there.is_symlink() and not there.exists() else "a file"
        raise BadSetting(f"cannot write to the folder '{folder}': '{there}' is {what}; choose another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadSetting(f"cannot write to the folder '{folder}': '{there}' is read-only; choose another")


def pipeline(model: str | PipelineSource, arguments: Iterable[str], **loading: Any) -> str | PipelineSource:
    """The model, with what the command line says of how to load it and call it.

    Args:
        model: Name, as for ``Plan``, or a pipeline of an earlier run.
        arguments: ``NAME=VALUE`` of a pipeline's call.
        loading: Settings of ``PipelineSource``; None if left open.

    Raises:
        BadSetting: If any of it is given for a model that is no diffusers pipeline.
    """
    checks.instance("model", model, str, PipelineSource, what="a name or a pipeline")  # a file's may be anything
    found = find_model(model) if isinstance(model, str) else model
    given = {setting: value for setting, value in loading.items() if value is not None}
    values: dict[str, Any] = {}
    for key, value in map(assignment, arguments):
        if key in values:
            raise BadSetting(f"--pipeline-arg gives {key} twice; give it once")
        values[key] = read_argument(value)
    if isinstance(found, PipelineSource):
        return replace(found, arguments={**found.arguments, **values}, **given)
    if given or values:
        setting = "pipeline-arg" if values else next(iter(given))
        option = {"compiled": "compile", "distilled": "few-step"}.get(setting, setting)
        raise BadSetting(
            f"--{option} is only for diffusers pipelines (owner/name, or a folder), which '{model}' is not"
        )
    assert isinstance(model, str)
    return model
