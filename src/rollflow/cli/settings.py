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
from rollflow.models import MODELS, PipelineSource, find_model
from rollflow.models.diffusers import read_argument
from rollflow.options import options_of
from rollflow.prompts import Prompt, read_ask
from rollflow.registry import Registry, assignment, settings_of


class Given(NamedTuple):
    """The command line of a run.

    Args:
        prompt: Prompt; None if there is none.
        ask: Counts, ``THING=COUNT`` each.
        options: Options of the plan by name, without those that the user did not give.
        settings: Settings, ``NAME=VALUE`` for the method and ``CHOICE.NAME=VALUE`` for any other choice.
        arguments: Arguments of a pipeline's call, ``NAME=VALUE`` each.
        loading: Settings of ``PipelineSource``; None if not given.
    """

    prompt: str | None
    ask: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}
    settings: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    loading: Mapping[str, Any] = {}

    @property
    def empty(self) -> bool:
        """Whether the command line says nothing of the plan, so that an earlier run is repeated as it was."""
        told = (self.ask, self.options, self.settings, self.arguments)
        return self.prompt is None and not any(told) and all(value is None for value in self.loading.values())


def plan_of(given: Given, earlier: EarlierRun | None = None, *, trusted: bool = False) -> Plan:
    """Make the plan of a command line.

    Args:
        given: The command line.
        earlier: Run to repeat, whose options are used unless the command line gives others.
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
    """Return the options of an earlier run that the command line does not give."""
    content = {name: value for name, value in earlier.record.plan.items() if name not in options}
    model = content.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("arguments"), Mapping):
        replaced = {assignment(text)[0] for text in given.arguments}
        kept = {name: value for name, value in model["arguments"].items() if name not in replaced}
        content["model"] = {**model, "arguments": kept}
    repeated = described.from_json(Plan, content, where=f"'{earlier.path}'", trusted=trusted)
    source = repeated.get("model")
    if isinstance(source, PipelineSource) and earlier.record.device == "cpu" and source.device == "auto":
        repeated["model"] = replace(source, device="cpu")
    return repeated


def chosen(settings: Iterable[str], choices: Mapping[str, Any], *, updated: Collection[str] = ()) -> dict[str, Any]:
    """Create the choices that have settings on the command line.

    Args:
        settings: Settings, ``NAME=VALUE`` for the method and ``CHOICE.NAME=VALUE`` for any other choice.
        choices: Text of each choice; None if there is none.
        updated: Choices taken from an earlier run, whose settings are replaced by given ones of the same name.

    Raises:
        UnknownName: On an unknown name, choice or setting.
        BadSetting: On a value that cannot be read, or a setting of a choice that was not made.
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
    created: dict[str, Any] = {}
    for choice, of_choice in given.items():
        registry: Registry[Any] | None = registries[choice]
        text, before = choices[choice], dict[str, str]()
        if text is None:
            raise BadSetting(f"{choice}.{next(iter(of_choice))} is set, but no {choice} is chosen; add --{choice} NAME")
        assert registry is not None
        if choice in updated:
            text, before = registry.split(text)
        created[choice] = registry.make(text, before | of_choice)
    return created


def check_output(folder: Path) -> None:
    """Raise an error if a folder cannot be created or written to, or is in the installed package; creates nothing."""
    check_outside(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        what = "a link that leads nowhere" if there.is_symlink() and not there.exists() else "a file"
        raise BadSetting(f"cannot write to the folder '{folder}': '{there}' is {what}; choose another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadSetting(f"cannot write to the folder '{folder}': '{there}' is read-only; choose another folder")


def with_dtype(model: str, dtype: str | None) -> tuple[str, str | None]:
    """Move ``--dtype`` into the text that names a model, if the model has such a setting, as the embedded ones do.

    Returns:
        The text, and the dtype that is left for a pipeline.
    """
    name = model.partition("(")[0]
    if dtype is None or name not in MODELS.names():
        return model, dtype
    setting = settings_of(MODELS.find(name)).get("dtype")
    if setting is None:
        return model, dtype
    _, given = MODELS.split(model)
    given["dtype"] = dtype
    if dtype == setting.default:
        del given["dtype"]
    texts = [f"{key}={value}" for key, value in given.items()]
    return f"{name}({', '.join(texts)})" if texts else name, None


def pipeline(model: str | PipelineSource, arguments: Iterable[str], **loading: Any) -> str | PipelineSource:
    """Return the model, with the command line's settings of how to load and call it.

    Args:
        model: Name, as for ``Plan``, or the pipeline of an earlier run.
        arguments: Arguments of a pipeline's call, ``NAME=VALUE`` each.
        loading: Settings of ``PipelineSource``; None if not given.

    Raises:
        BadSetting: If any of these is given for a model that is not a diffusers pipeline.
    """
    checks.instance("model", model, str, PipelineSource, what="a name or a pipeline")  # a file may hold anything
    if isinstance(model, str):
        model, loading["dtype"] = with_dtype(model, loading.get("dtype"))
    source = find_model(model) if isinstance(model, str) else model
    given = {setting: value for setting, value in loading.items() if value is not None}
    values: dict[str, Any] = {}
    for key, value in map(assignment, arguments):
        if key in values:
            raise BadSetting(f"--pipeline-arg gives {key} twice; give it once")
        values[key] = read_argument(value)
    if isinstance(source, PipelineSource):
        return replace(source, arguments={**source.arguments, **values}, **given)
    if given or values:
        setting = "pipeline-arg" if values else next(iter(given))
        option = {"compiled": "compile", "distilled": "few-step"}.get(setting, setting)
        raise BadSetting(
            f"--{option} is only for diffusers pipelines (owner/name, or a folder), which '{model}' is not"
        )
    assert isinstance(model, str)
    return model
