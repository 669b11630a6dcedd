"""What can be chosen by name, read from a file in the package, so that a list does not wait for torch.

``python tools/catalogue.py`` writes the file; a test compares it with the registries. Plug-ins are not in it: theirs
are imported, if there are any.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rollflow.errors import BadSetting, RollflowError

if TYPE_CHECKING:
    from rollflow.registry import Registry

FILE = Path(__file__).parents[1] / "catalogue.json"


class Catalogue(NamedTuple):
    """One kind of choice.

    Args:
        what: Name of one of the kind.
        registry: Its registry, as ``module:name``.
        group: Entry-point group of its plug-ins; None if there is none.
    """

    what: str
    registry: str
    group: str | None = None

    def find_registry(self) -> Registry[Any]:
        """Import the registry."""
        module, _, name = self.registry.partition(":")
        found: Registry[Any] = getattr(import_module(module), name)
        return found


KINDS = {
    "methods": Catalogue("method", "rollflow.search:SEARCHES", "rollflow.searches"),
    "kernels": Catalogue("kernel", "rollflow.dynamics.kernels:KERNELS"),
    "interpolants": Catalogue("interpolant", "rollflow.dynamics.interpolants:INTERPOLANTS"),
    "grids": Catalogue("grid", "rollflow.dynamics.grids:GRIDS"),
    "lookaheads": Catalogue("look-ahead", "rollflow.dynamics.lookahead:LOOKAHEADS"),
    "guidance": Catalogue("guidance", "rollflow.dynamics.guidance:GUIDANCE"),
    "models": Catalogue("model", "rollflow.models:MODELS", "rollflow.models"),
    "rewards": Catalogue("reward", "rollflow.rewards:REWARDS", "rollflow.rewards"),
}


class Entry(NamedTuple):
    """A choice.

    Args:
        kind: Name of its kind, in the singular.
        name: Name of the choice.
        description: Description in one line.
        settings: Default of each setting as the text that sets it; None if it is required.
        facts: What to know before it is loaded, by label.
        doc: Full description.
    """

    kind: str
    name: str
    description: str
    settings: Mapping[str, str | None] = {}
    facts: Mapping[str, str] = {}
    doc: str = ""


def entries(plural: str) -> list[Entry]:
    """Return the choices of a kind: the library's own from the file, then those of plug-ins."""
    from rollflow.registry import plugins

    kind = KINDS[plural]
    own = [Entry(kind.what, **content) for content in _stored()[plural]]
    names = {entry.name for entry in own}
    others = [name for name in plugins(kind.group) if name not in names]
    return own + ([entry_of(kind, kind.find_registry(), name) for name in others] if others else [])


def names(plural: str) -> list[str]:
    """Return the names of the choices of a kind, with those of plug-ins, which are not imported."""
    from rollflow.registry import plugins

    return list(dict.fromkeys([*own_names(plural), *plugins(KINDS[plural].group)]))


def own_names(plural: str) -> list[str]:
    """Return the names of the library's own choices of a kind."""
    return [content["name"] for content in _stored()[plural]]


def pipelines() -> list[str]:
    """Return the names of the diffusers pipelines that the tests cover."""
    return [str(name) for name in _stored()["pipelines"]]


def _stored() -> dict[str, list[Any]]:
    content: dict[str, list[Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def current() -> dict[str, list[dict[str, Any]]]:
    """Return what the file should hold of every kind, from the registries."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for plural, kind in KINDS.items():
        registry = kind.find_registry()
        kinds[plural] = [entry_of(kind, registry, name)._asdict() for name in registry]
        for content in kinds[plural]:
            del content["kind"]
    return kinds


def entry_of(kind: Catalogue, registry: Registry[Any], name: str) -> Entry:
    """Describe a choice by its class; the description of one that cannot be imported is the error."""
    from rollflow.registry import settings_of

    try:
        found = registry.find(name)
        settings = {setting: _default(parameter) for setting, parameter in settings_of(found).items()}
    except RollflowError as error:
        return Entry(kind.what, name, f"({error})")
    doc = inspect.getdoc(found) or ""
    description = str(getattr(found, "description", None) or doc).partition("\n")[0]
    return Entry(kind.what, name, description, settings, _facts(found) if kind.what == "reward" else {}, doc)


def _default(parameter: inspect.Parameter) -> str | None:
    from rollflow.registry import written

    if parameter.default is parameter.empty:
        return None
    if isinstance(parameter.default, Path) and parameter.default.is_relative_to(FILE.parent):
        return "(in the package)"
    try:
        return written(parameter.default)
    except BadSetting:
        return repr(parameter.default)


def _facts(reward: Any) -> dict[str, str]:
    card = reward.card._asdict() if reward.card else {}
    held_out = ", ".join(reward.held_out) or "none"
    return {"differentiable": "yes" if reward.differentiable else "no", "held-out": held_out, **card}
