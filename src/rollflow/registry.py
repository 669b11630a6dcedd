"""Everything that is chosen by name: what the library has, what plug-ins bring, and settings given as text."""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, ClassVar, Generic, TypeVar

from rollflow.errors import RollflowError, unknown

T = TypeVar("T")
_CHOICE = re.compile(r"(?P<name>[\w.:\-]+)\s*(\((?P<settings>.*)\))?", re.DOTALL)


class Registry(dict[str, type[T]], Generic[T]):
    """Classes of one kind by name: the library's own as a dict, others through ``find``.

    Args:
        what: The kind, as in error messages.
        base: What all of them derive from.
        own: The library's own.
        group: Entry-point group in which installed packages offer theirs; None where there is none.
    """

    of: ClassVar[dict[type, Registry[Any]]] = {}
    """Every registry by its base, so that settings of that type can be given by name."""

    def __init__(self, what: str, base: type, own: Mapping[str, type[T]], group: str | None = None) -> None:
        super().__init__(own)
        self.what = what
        self.base = base
        self.group = group
        Registry.of[base] = self

    def _plugins(self) -> dict[str, Any]:
        return {} if self.group is None else {point.name: point for point in entry_points(group=self.group)}

    def find(self, name: str) -> type[T]:
        """The class of a name: the library's own, one that a plug-in brings, or ``module:attribute``.

        Raises:
            UnknownName: If nothing has the name.
            RollflowError: If what it names cannot be imported or is of another kind.
        """
        if name in self:
            return self[name]
        plugins = self._plugins()
        if name not in plugins and ":" not in name:
            raise unknown(self.what, name, [*self, *plugins])
        try:
            found: Any = plugins[name].load() if name in plugins else _imported(name)
        except (ImportError, AttributeError) as error:
            raise RollflowError(f"{self.what} '{name}' cannot be loaded: {error}") from error
        of_kind = isinstance(found, type) and issubclass(found, self.base)
        if not of_kind:
            raise RollflowError(f"{self.what} '{name}' is {found!r}; expected a subclass of {self.base.__name__}")
        kind: type[T] = found
        return kind

    def declared(self, text: str) -> type[T] | T:
        """What is known of a choice: the class where a name alone stands for it, so that nothing is made, else it.

        Raises:
            UnknownName: On an unknown name or setting.
            RollflowError: As ``make``.
        """
        kind = self.find(text) if "(" not in text else None
        return self.make(text) if kind is None or _required(kind) else kind

    def names(self) -> list[str]:
        """Every name that ``find`` knows without a colon: the library's own, then those of plug-ins."""
        return [*self, *(name for name in self._plugins() if name not in self)]

    def make(self, text: str, settings: Mapping[str, str] | None = None) -> T:
        """An object from text: ``name`` or ``name(setting=value, ...)``, with further settings beside it.

        Values are read as the annotation of the setting says; where that is a kind with a registry of its own, the
        value is such a text again: ``quantile(q=0.9)``.

        Raises:
            UnknownName: On an unknown name or setting.
            RollflowError: On a value that cannot be read, or a setting that is missing; also what the constructor
                raises.
        """
        match = _CHOICE.fullmatch(text.strip())
        if match is None:
            raise RollflowError(f"expected NAME or NAME(SETTING=VALUE, ...) for a {self.what}, not '{text}'")
        kind = self.find(match["name"])
        given = dict(assignment(part) for part in _parts(match["settings"] or ""))
        given.update(settings or {})
        known = settings_of(kind)
        for name in given:
            if name not in known:
                raise unknown(f"setting of {self.what} {match['name']}", name, known)
        missing = [name for name in _required(kind) if name not in given]
        if missing:
            raise RollflowError(
                f"{self.what} '{match['name']}' needs {', '.join(missing)}: {match['name']}({missing[0]}=...)"
            )
        return kind(**{name: _read(name, value, known[name].annotation) for name, value in given.items()})


def _required(kind: type) -> list[str]:
    return [name for name, setting in settings_of(kind).items() if setting.default is inspect.Parameter.empty]


def assignment(text: str) -> tuple[str, str]:
    """The two sides of ``name=value``."""
    name, equals, value = text.partition("=")
    if not (equals and name.strip()):
        raise RollflowError(f"expected SETTING=VALUE, not '{text}'")
    return name.strip(), value.strip()


def settings_of(kind: type) -> dict[str, inspect.Parameter]:
    """Parameters of a class's constructor, with their annotations resolved."""
    return {
        name: parameter
        for name, parameter in inspect.signature(kind, eval_str=True).parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _parts(text: str, between: str = ",") -> list[str]:
    """Split at the commas, or what else stands between, that no parenthesis encloses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == between and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def _read(name: str, text: str, annotation: Any) -> Any:
    """A value from text, as an annotation says."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if annotation is inspect.Parameter.empty:
        return text
    if type(None) in options and text.lower() == "none":
        return None
    for option in options:
        if option in Registry.of:
            return Registry.of[option].make(text)
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float, str):
            try:
                return option(text)
            except ValueError:
                continue
        if typing.get_origin(option) is tuple:
            inner = typing.get_args(option)[0]
            return tuple(_read(name, part, inner) for part in _parts(text, ";"))
    kinds = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise RollflowError(f"{name}={text} cannot be read; expected {kinds}")
