"""The layout of the help: options in titled groups, values named in words, and completion of what has a name.

It is plain text, which every console can show and which looks the same in a file.
"""

from __future__ import annotations

import copy
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from rollflow.cli import catalogue

Function = typing.TypeVar("Function", bound=Callable[..., Any])

_PANELS = {
    "Sampler": ("interpolant", "kernel", "steps", "grid", "lookahead", "guidance", "finish", "best_seen"),
    "Search and rewards": ("as_published", "surrogate", "held_out", "choose_by", "shortlist", "ask", "settings"),
    "Diffusers pipelines": (
        "pipeline_arg",
        "device",
        "dtype",
        "offload",
        "quantize",
        "compiled",
        "few_step",
        "revision",
    ),
    "Batches": ("max_rows", "max_grad_rows"),
}
"""Titles of the groups of options, each with the names of its parameters; all others are under Options."""

_WORDS = {str: "TEXT", int: "N", float: "X", Path: "PATH"}
"""What the help calls values, by their type."""

_METAVARS = {"ask": "THING=COUNT", "settings": "NAME=VALUE", "pipeline_arg": "NAME=VALUE"}
_LISTED = ("method", "reward", "interpolant", "kernel", "grid", "lookahead", "guidance")
"""Options in whose help the library's own choices are listed."""

_TYPE = re.compile(r" <[^<>]*>")
"""Type of a value that newer versions of Typer show beside its name."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "device": ("cpu", "cuda", "cuda:0", "mps"),
    "dtype": ("float32", "bfloat16", "float16"),
    "offload": ("model", "sequential"),
    "quantize": ("8bit", "4bit"),
    "split": ("tuning", "confirmation"),
    "distance": ("scenes", "lpips", "none"),
}
_KINDS = {
    "model": "models",
    "method": "methods",
    "reward": "rewards",
    "surrogate": "rewards",
    "held_out": "rewards",
    "choose_by": "rewards",
    "interpolant": "interpolants",
    "kernel": "kernels",
    "grid": "grids",
    "lookahead": "lookaheads",
    "guidance": "guidance",
}
"""Kinds of the choices that parameters name."""


class App(typer.Typer):
    """Typer whose commands have this layout."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        settings.setdefault("cls", _Command)
        register = super().command(name, **settings)

        def registered(function: Function) -> Function:
            register(laid_out(function))
            return function

        return registered


class _Command(TyperCommand):
    """A command whose help has its options in the groups of ``_PANELS``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        groups.update({title: [] for title in _PANELS})
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                groups["Arguments"].append((_TYPE.sub("", record[0]), record[1]))
            else:
                title = getattr(param, "rich_help_panel", None) or "Options"
                groups.setdefault(title, []).append((record[0], _with_choices(param, record[1])))
        for title in [title for title, records in groups.items() if len(records) == 1 and title in _PANELS]:
            groups["Options"] += groups.pop(title)  # one option needs no title
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _with_choices(param: Any, text: str) -> str:
    """Insert the names that are known behind an option's own help text, before its default."""
    if param.name not in _LISTED or not text.startswith(param.help):
        return text
    own = ", ".join(catalogue.own_names(_KINDS[param.name]))
    return f"{param.help} Known: {own}.{text[len(param.help) :]}"


def laid_out(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like the command for Typer, with groups, words for values and completion."""
    signature = inspect.signature(command, eval_str=True)
    panels = {name: title for title, names in _PANELS.items() for name in names}
    parameters = [_parameter(one, panels.get(name)) for name, one in signature.parameters.items()]

    def run(*args: Any, **kwargs: Any) -> Any:
        return command(*args, **{name: _expanded(value) for name, value in kwargs.items()})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _expanded(value: Any) -> Any:
    """Replace ``~`` in paths, which shells leave in ``--out=~/folder``."""
    if isinstance(value, list | tuple):
        return type(value)(map(_expanded, value))
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value


def _parameter(parameter: inspect.Parameter, panel: str | None) -> inspect.Parameter:
    if typing.get_origin(parameter.annotation) is not typing.Annotated:
        return parameter
    kind, *others = typing.get_args(parameter.annotation)
    written = [_info(one, parameter.name, kind, panel) for one in others]
    return parameter.replace(annotation=typing.Annotated[(kind, *written)])


def _info(info: Any, name: str, kind: Any, panel: str | None) -> Any:
    if not isinstance(info, typer.models.ParameterInfo):
        return info
    info = copy.copy(info)
    if isinstance(info, typer.models.OptionInfo):
        info.rich_help_panel = info.rich_help_panel or panel
        info.metavar = info.metavar or _METAVARS.get(name) or ("NAME" if name in _KINDS else _word(kind))
    if info.autocompletion is None and (name in _KINDS or name in _CHOICES):
        info.autocompletion = _completing(name)
    return info


def _word(kind: Any) -> str | None:
    """Return what stands for a value of a type; None for a flag."""
    given = [one for one in typing.get_args(kind) if one is not types.NoneType]
    if typing.get_origin(kind) is tuple:
        return " ".join(str(_word(one)) for one in given)
    return _word(given[0]) if given else _WORDS.get(kind)


def _completing(name: str) -> Callable[[str], Iterable[str]]:
    def complete(incomplete: str) -> list[str]:
        known = catalogue.names(_KINDS[name]) if name in _KINDS else _CHOICES[name]
        return [one for one in known if one.startswith(incomplete)]

    return complete
