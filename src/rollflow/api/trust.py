"""What a file from somebody else may choose: names of the library and of plug-ins, with numbers as settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rollflow.errors import RollflowError, UnknownName
from rollflow.models import MODELS
from rollflow.registry import Named, Registry
from rollflow.rewards import RewardModel
from rollflow.rewards.pretrained.base import Pretrained


def refuse_untrusted(where: str, model: object, choices: Iterable[tuple[Registry[Any], str]]) -> None:
    """Refuse what a file must not do on a machine whose user does not trust it.

    Its names may be those of the library and of installed plug-ins, with settings that are numbers or such names again.
    It may not name a module, nor a file, a model or a server, neither in the settings of what it names, nor by the
    choice of a reward that downloads weights, asks a server, or asks at the terminal.

    Args:
        where: The file or folder, as it is called in errors.
        model: Name of the model, or settings of a pipeline; None if it is not taken from the file.
        choices: Texts of everything else that is taken from it, each with the registry of its kind.

    Raises:
        RollflowError: In words that say what would be done, and that ``--trust`` allows it.
    """
    if model is not None and not (isinstance(model, str) and model in MODELS.names()):
        raise _untrusted(where, f"would load the model {model!r:.200}")
    for registry, text in choices:
        try:
            found = registry.named(text)
        except UnknownName:
            raise _untrusted(where, f"would look for {text!r} outside the library and its plug-ins") from None
        for one in _all(found):
            if one.texts:
                raise _untrusted(where, f"would use {text!r}, whose settings name a file, a model or a server")
            if issubclass(one.kind, RewardModel) and _reaches_out(one.kind):
                raise _untrusted(
                    where, f"would use {text!r}, which asks a server or a person, or may download its weights"
                )


def _untrusted(where: str, what: str) -> RollflowError:
    return RollflowError(f"{where} {what}; if you trust whoever made it, add --trust")


def _all(found: Named) -> Iterator[Named]:
    yield found
    for part in found.parts:
        yield from _all(part)


def _reaches_out(kind: type[RewardModel]) -> bool:
    return kind.remote or kind.interactive or issubclass(kind, Pretrained)
