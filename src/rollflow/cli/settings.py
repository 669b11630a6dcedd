"""Choices of the command line with their settings: ``--kernel ddim --set kernel.eta=0.5 --set initial=5``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from rollflow.dynamics.grids import GRIDS, Grid
from rollflow.dynamics.guidance import GUIDANCE, Guidance
from rollflow.dynamics.interpolants import INTERPOLANTS, Interpolant
from rollflow.dynamics.kernels import KERNELS, Kernel
from rollflow.dynamics.lookahead import LOOKAHEADS, Lookahead
from rollflow.errors import BadSetting, unknown
from rollflow.files.atomic import check_outside
from rollflow.models import PipelineSource, find_model
from rollflow.models.diffusers import read_argument
from rollflow.registry import Registry, assignment
from rollflow.search import SEARCHES, Search

_REGISTRIES: dict[str, Registry[Any]] = {
    "method": SEARCHES,
    "interpolant": INTERPOLANTS,
    "kernel": KERNELS,
    "grid": GRIDS,
    "lookahead": LOOKAHEADS,
    "guidance": GUIDANCE,
}


class Chosen(TypedDict, total=False):
    """Arguments of ``Plan``; what the user left open is absent."""

    method: Search
    interpolant: Interpolant
    kernel: Kernel
    grid: Grid
    lookahead: Lookahead
    guidance: Guidance


def chosen(settings: Iterable[str], **choices: str | None) -> Chosen:
    """Objects of the choices made, with their settings.

    Args:
        settings: ``NAME=VALUE`` of the method, ``CHOICE.NAME=VALUE`` of any other.
        choices: Text of each choice; None where the user left it open.

    Raises:
        UnknownName: On an unknown name, choice or setting.
        BadSetting: On a value that cannot be read, or a setting of what was left open.
    """
    given: dict[str, dict[str, str]] = {choice: {} for choice in _REGISTRIES}
    for text in settings:
        name, value = assignment(text)
        choice, dot, setting = name.rpartition(".")
        if dot and choice not in given:
            raise unknown("choice", choice, given)
        of = given[choice or "method"]
        if setting in of:
            raise BadSetting(f"--set gives {name} twice; set it once")
        of[setting] = value
    made: Chosen = {}
    for choice, of_choice in given.items():
        wanted = choices[choice]
        if wanted is not None:
            made[choice] = _REGISTRIES[choice].make(wanted, of_choice)  # type: ignore[literal-required]
        elif of_choice:
            raise BadSetting(f"{choice}.{next(iter(of_choice))} is set, but which {choice} is not: add --{choice}")
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


def pipeline(name: str, arguments: Iterable[str], **loading: Any) -> str | PipelineSource:
    """The model of a name, with what is said of how to load it and call it.

    Args:
        name: As for ``Plan``.
        arguments: ``NAME=VALUE`` of a pipeline's call.
        loading: Settings of ``PipelineSource``; None where the user left one open.

    Raises:
        BadSetting: If any of it is said of a model that is no pipeline of diffusers.
    """
    found = find_model(name)
    given = {setting: value for setting, value in loading.items() if value is not None}
    values: dict[str, Any] = {}
    for key, value in map(assignment, arguments):
        if key in values:
            raise BadSetting(f"--pipeline-arg gives {key} twice; give it once")
        values[key] = read_argument(value)
    if isinstance(found, PipelineSource):
        return replace(found, arguments=values, **given)
    if given or values:
        setting = "pipeline-arg" if values else next(iter(given))
        option = {"compiled": "compile", "distilled": "few-step"}.get(setting, setting)
        raise BadSetting(f"--{option} is of pipelines of diffusers (owner/name, or a folder), which '{name}' is not")
    return name
