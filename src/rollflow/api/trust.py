"""Limits on what a file from somebody else may choose: names of the library and of plug-ins, with numeric settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rollflow.errors import RollflowError, UnknownName
from rollflow.models import MODELS
from rollflow.registry import Named, Registry
from rollflow.rewards import RewardModel
from rollflow.rewards.pretrained.base import Pretrained


def refuse_untrusted(where: str, model: object, choices: Iterable[tuple[Registry[Any], str]]) -> None:
    """Refuse choices that a file may make only if the user trusts it.

    Allowed are names of the library and of installed plug-ins, with settings that are numbers or such names. Without
    trust, a file may not name a module, a file, a model or a server, neither directly nor in settings, and may not
    choose a reward that downloads weights, contacts a server, or asks at the terminal.

    Args:
        where: The file or folder, as errors call it.
        model: Name of the model, or settings of a pipeline; None if the file does not choose it.
        choices: Texts of all other choices of the file, each with its registry.

    Raises:
        RollflowError: If there is such a choice; the text says what would be done, and that ``--trust`` allows it.
    """
    if model is not None and not (isinstance(model, str) and _is_packaged(model)):
        raise _untrusted(where, f"would load the model {model!r:.200}")
    for registry, text in choices:
        try:
            found = registry.named(text)
        except UnknownName:
            raise _untrusted(where, f"would import {text!r}, which is not part of the library or a plug-in") from None
        for one in _all(found):
            if one.texts:
                raise _untrusted(where, f"would use {text!r}, whose settings name a file, a model or a server")
            if issubclass(one.kind, RewardModel) and _reaches_out(one.kind):
                raise _untrusted(
                    where, f"would use {text!r}, which contacts a server, asks a person or may download weights"
                )


def _is_packaged(model: str) -> bool:
    """Whether a text names a model of the library or of a plug-in, with settings that name nothing else."""
    try:
        return not MODELS.named(model).texts
    except RollflowError:
        return False


def _untrusted(where: str, what: str) -> RollflowError:
    return RollflowError(f"{where} {what}; if you trust its author, add --trust")


def _all(found: Named) -> Iterator[Named]:
    yield found
    for part in found.parts:
        yield from _all(part)


def _reaches_out(kind: type[RewardModel]) -> bool:
    return kind.remote or kind.interactive or issubclass(kind, Pretrained)
