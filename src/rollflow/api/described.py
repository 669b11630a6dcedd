"""Conversion of plans to JSON and back, so that a later run can repeat them from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from rollflow.api.trust import refuse_untrusted
from rollflow.errors import BadSetting, RollflowError
from rollflow.models import DiffusersModel, PipelineSource
from rollflow.models.diffusers import read_argument
from rollflow.models.diffusers.source import PICTURES
from rollflow.options import Option, Options, options_of
from rollflow.prompts import Prompt
from rollflow.registry import Registry
from rollflow.rewards import FunctionReward
from rollflow.search import Search

OBJECT = "object"
"""Key of the description that replaces a value without a text."""


def to_json(plan: Options) -> dict[str, Any]:
    """Convert every option of a plan to JSON types, by name.

    A choice becomes a text, a ``Prompt`` its text and counts, and a pipeline the settings of its
    ``PipelineSource``. An object that has no text, such as one of an unregistered class, becomes a description, which
    can be read but not run.
    """
    values = {name: getattr(plan, name) for name in options_of(type(plan))}
    return {"prompt": _prompt(plan.prompt), **values_to_json(values, type(plan))}


def values_to_json(values: Mapping[str, Any], kind: type[Options] = Options) -> dict[str, Any]:
    """Convert some options to JSON types, by name, as ``to_json`` does."""
    declared = options_of(kind)
    return {name: _value(value, declared[name][1]) for name, value in values.items()}


def method_text(search: Search) -> Any:
    """What the JSON of a plan holds of a search."""
    return _value(search, options_of()["method"][1])


def _prompt(prompt: str) -> str | dict[str, Any]:
    return {"text": str(prompt), "ask": dict(prompt.ask)} if isinstance(prompt, Prompt) else prompt


def _value(value: Any, option: Option) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_value(part, option) for part in value]
    if isinstance(value, DiffusersModel) and value.source is not None:
        value = value.source
    if isinstance(value, PipelineSource):
        return _pipeline(value)
    registry = option.find_registry()
    try:
        if registry is None:
            raise BadSetting("it is not a choice")  # caught below
        return registry.text(value)
    except Exception:  # comparing and printing objects of other people's classes may raise anything
        kind = value.function if isinstance(value, FunctionReward) else type(value)
        kind = kind if hasattr(kind, "__qualname__") else type(kind)
        return {OBJECT: f"{kind.__module__}.{kind.__qualname__}"}


def _pipeline(source: PipelineSource) -> dict[str, Any]:
    """Return the settings of a pipeline that differ from their defaults, with arguments as on the command line."""
    content: dict[str, Any] = {"name": source.name}
    for one in fields(PipelineSource):
        value = getattr(source, one.name)
        if one.name not in ("name", "arguments") and value != one.default:
            content[one.name] = value
    if source.arguments:
        content["arguments"] = {name: _argument(value) for name, value in source.arguments.items()}
    return content


def _argument(value: Any) -> str | dict[str, str]:
    """Return the text that ``read_argument`` reads as this value; a description if there is none, as for pictures."""
    for text in (value, repr(value)) if isinstance(value, str) else (repr(value),):
        try:
            if text.lower().endswith(PICTURES):  # would be taken for a file
                continue
            read = read_argument(text)
            if type(read) is type(value) and read == value:
                return text
        except Exception:  # comparing foreign objects may raise anything
            continue
    return {OBJECT: type(value).__name__}


def from_json(kind: type[Options], content: Mapping[str, Any], *, where: str, trusted: bool = False) -> dict[str, Any]:
    """Convert the JSON of a plan to arguments of ``Plan``.

    Args:
        kind: Class of the plan.
        content: All or some of the options in the result of ``to_json``.
        where: Name of the plan in errors, such as a file in quotes.
        trusted: Whether it may name modules, files, models and servers (``trust.refuse_untrusted``).

    Raises:
        RollflowError: On an option that is not known, is malformed, has no text, or is not trusted.
    """
    known = options_of(kind)
    for name in content:
        if name not in known and name != "prompt":
            raise RollflowError(
                f"{where} sets the option '{name:.40}', which this release of rollflow does not have; correct the "
                "name, or install a newer release"
            )
    _refuse_objects(content, where)
    if not trusted:
        model = content.get("model")
        refuse_untrusted(where, model, list(_choices(content, known)))
    return {name: _read(name, value, where) for name, value in content.items()}


def _refuse_objects(content: Mapping[str, Any], where: str) -> None:
    for name, value in content.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping) and OBJECT in part:
                raise RollflowError(
                    f"{where} was made with an object for {name} ({part[OBJECT]!s:.80}), which a file cannot hold; "
                    f"give {_flag(name)}"
                )
            arguments = part.get("arguments") if isinstance(part, Mapping) else None
            for argument, text in arguments.items() if isinstance(arguments, Mapping) else ():
                if isinstance(text, Mapping):
                    raise RollflowError(
                        f"{where} was made with an argument '{argument}' of the pipeline that a file cannot hold "
                        f"({text.get(OBJECT)!s:.80}); give --pipeline-arg {argument}=..."
                    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _choices(
    content: Mapping[str, Any], known: Mapping[str, tuple[Any, Option]]
) -> Iterator[tuple[Registry[Any], str]]:
    """Yield the texts of all choices but the model, each with its registry."""
    for name, (_, option) in known.items():
        registry = option.find_registry()
        value = content.get(name)
        if registry is None or name == "model":
            continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text not in option.words:
                yield registry, text


def _read(name: str, value: Any, where: str) -> Any:
    """Convert one option; ``Plan`` refuses other malformed values."""
    if not isinstance(value, Mapping):
        return value
    try:
        if name == "prompt":
            return Prompt(value["text"], value["ask"])
        if name == "model":
            arguments = {key: read_argument(text) for key, text in value.get("arguments", {}).items()}
            return PipelineSource(**{**value, "arguments": arguments})
    except RollflowError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RollflowError(f"{where} is malformed: {name} is {value!s:.80} ({error})") from None
    raise RollflowError(f"{where} is malformed: {name} is {value!s:.80}")
