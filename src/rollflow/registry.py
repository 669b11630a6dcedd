"""Everything that is chosen by name: what the library has, what plug-ins bring, and settings given as text."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from rollflow.errors import BadSetting, blamed, unknown

T = TypeVar("T")
DEEPEST = 32
"""Deepest nesting of choices in the settings of others."""
_CHOICE = re.compile(r"(?P<name>[\w.:\-]+)\s*(\((?P<settings>.*)\))?", re.DOTALL)
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
searched: list[str] = []
"""Folders besides ``sys.path`` in which ``module:attribute`` finds modules; the command line adds the working one.

They are not part of ``sys.path`` until the user names such a module: a folder from somebody else, which is the working
directory while it is looked at, could otherwise stand in for packages that are not installed, and for plug-ins.
"""
_LONGEST = 4096
"""Longest text, in characters, of a choice from an untrusted file."""


class Named(NamedTuple):
    """What a text names, looked up without creating it.

    Args:
        kind: Class that is named.
        parts: Choices that its settings name.
        texts: Settings that are texts: paths, URLs, names of models.
        given: Names of all settings.
    """

    kind: type
    parts: tuple[Named, ...] = ()
    texts: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


class Registry(dict[str, type[T]], Generic[T]):
    """Classes of one kind by name: the library's own as a dict, others through ``find``.

    Args:
        what: Name of the kind in error messages.
        base: Base class of all of them.
        own: The library's own classes, by name.
        group: Entry-point group in which installed packages offer theirs; None if there is none.
        check: Function that raises a BadSetting if a class from elsewhere is unusable; None checks nothing.
    """

    of: ClassVar[dict[type, Registry[Any]]] = {}
    """Every registry by its base, so that settings of that type can be given by name."""

    def __init__(
        self,
        what: str,
        base: type,
        own: Mapping[str, type[T]],
        group: str | None = None,
        check: Callable[[type[T]], None] | None = None,
    ) -> None:
        super().__init__(own)
        self.check = check
        self.what = what
        self.base = base
        self.group = group
        Registry.of[base] = self

    def _plugins(self) -> dict[str, Any]:
        return {} if self.group is None else {point.name: point for point in entry_points(group=self.group)}

    def find(self, name: str) -> type[T]:
        """Find the class of a name: the library's own, a plug-in's, or ``module:attribute``.

        Raises:
            UnknownName: If the name is not known.
            BadSetting: If it names something of another kind.
            RollflowError: If it cannot be imported.
        """
        if name in self:
            return self[name]
        plugins = self._plugins()
        if name not in plugins and ":" not in name:
            raise unknown(self.what, name, [*self, *plugins])
        if name not in plugins and _PATH.fullmatch(name) is None:
            raise BadSetting(f"{self.what} '{name}' is no name; a class of your own is module:attribute")
        with blamed(f"{self.what} '{name}' cannot be loaded", BadSetting):
            found: Any = plugins[name].load() if name in plugins else _imported(name)
        return self._checked(name, found)

    def _checked(self, name: str, found: Any) -> type[T]:
        """Return what a plug-in brings if it is a usable class of this kind."""
        if not (isinstance(found, type) and issubclass(found, self.base)):
            got = f"the {found!r}"[:120] if isinstance(found, type) else f"{found!r}"[:120]
            raise BadSetting(f"{self.what} '{name}' is {got}; expected a subclass of {self.base.__name__}")
        if inspect.isabstract(found):
            lacking = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise BadSetting(f"{self.what} '{name}' is an abstract class, which lacks {lacking}")
        if "name" in self.base.__annotations__ and not isinstance(getattr(found, "name", None), str):
            raise BadSetting(f"{self.what} '{name}' has no name; give its class one: name = \"...\"")
        kind = typing.cast("type[T]", found)
        if self.check is not None:
            self.check(kind)
        return kind

    def named(self, text: str, *, plugins: bool = True, depth: int = 0) -> Named:
        """Look up what a text from an untrusted file names: registered classes only, none of which is created.

        Args:
            text: As for ``make``.
            plugins: Whether names of plug-ins are looked up, which imports them; modules are imported in no case.
            depth: Of the text within others.

        Raises:
            UnknownName: On an unknown name or setting.
            BadSetting: On a text that ``make`` would not read.
        """
        match = _CHOICE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        if match is None or depth > DEEPEST:
            raise BadSetting(f"expected NAME or NAME(SETTING=VALUE, ...) for a {self.what}, not '{text:.80}'")
        name = match["name"]
        if name not in (self.names() if plugins else self):
            raise unknown(self.what, name, self.names())
        kind = self.find(name)
        known, parts, texts = settings_of(kind), list[Named](), list[str]()
        given = dict(assignment(part) for part in _parts(match["settings"] or ""))
        for setting, value in given.items():
            if setting not in known:
                raise unknown(f"setting of {self.what} {name}", setting, known)
            found = _named(value, known[setting].annotation, plugins, depth + 1)
            if found is None:
                texts.append(f"{setting}={value}")
            else:
                parts += found
        return Named(kind, tuple(parts), tuple(texts), tuple(given))

    def resolve(self, text: str) -> type[T] | T:
        """Return what is known of a choice: the class if the text is only a name, so nothing loads; else an object.

        A class that says that making one loads nothing (``loads_later``) is made, which checks its settings; so is
        one of others that does not say that it does.

        Raises:
            UnknownName: On an unknown name or setting.
            RollflowError: As ``make``.
        """
        kind = self.find(text) if "(" not in text else None
        later = getattr(kind, "loads_later", False)
        made = kind is None or _required(kind) or (text not in self if later is None else later)
        return self.make(text) if made else typing.cast("type[T]", kind)

    def names(self) -> list[str]:
        """List every name without a colon that ``find`` knows: the library's own, then those of plug-ins."""
        return [*self, *(name for name in self._plugins() if name not in self)]

    def make(self, text: str, settings: Mapping[str, str] | None = None) -> T:
        """Create an object from text, ``name`` or ``name(setting=value, ...)``, with further settings if given.

        Values are read as the annotation of the setting says; where that is a kind with a registry of its own, the
        value is such a text again: ``quantile(q=0.9)``.

        Raises:
            UnknownName: On an unknown name or setting.
            BadSetting: On a value that cannot be read, or a setting that is missing or given twice.
            RollflowError: If the constructor raises anything.
        """
        called, given = self.split(text)
        kind = self.find(called)
        for name, value in (settings or {}).items():
            if name in given:
                raise BadSetting(f"{name} of {self.what} '{called}' is set twice; set it once")
            given[name] = value
        known = settings_of(kind)
        for name in given:
            if name not in known:
                raise unknown(f"setting of {self.what} {called}", name, known)
        missing = [name for name in _required(kind) if name not in given]
        if missing:
            raise BadSetting(f"{self.what} '{called}' needs {', '.join(missing)}: {called}({missing[0]}=...)")
        values = {name: _read(name, value, known[name].annotation) for name, value in given.items()}
        with blamed(f"{self.what} '{called}' cannot be made"):
            return self._made(called, kind(**values))

    def text(self, made: T) -> str:
        """Return the text from which ``make`` creates such an object again: ``name`` or ``name(setting=value, ...)``.

        A dataclass is written with all its settings and compared with what its text makes. Of another class, which may
        load weights when it is made, the settings are those that it keeps as attributes.

        Raises:
            BadSetting: If there is no such text: its class has no name, or a setting cannot be written.
        """
        kind = type(made)
        name = self._name_of(kind)
        if name is None:
            raise BadSetting(f"{kind.__module__}.{kind.__qualname__} is not a registered {self.what}")
        given = []
        for setting, parameter in settings_of(kind).items():
            value = getattr(made, setting, parameter.default)
            if value is inspect.Parameter.empty:
                raise BadSetting(f"{self.what} '{name}' does not keep its setting '{setting}'")
            if value != parameter.default and str(value) != str(parameter.default):
                given.append(f"{setting}={_written(value)}")
        text = f"{name}({', '.join(given)})" if given else name
        if is_dataclass(made) and self.make(text) != made:
            raise BadSetting(f"the settings of {made!r:.200} cannot be written as text")
        return text

    def _name_of(self, kind: type) -> str | None:
        """The name of a class: the library's own, a plug-in's, or ``module:attribute`` if that leads to it."""
        path = f"{kind.__module__}:{kind.__qualname__}"
        for name, own in self.items():
            if own is kind:
                return name
        for name, point in self._plugins().items():
            if getattr(point, "value", None) == path:
                return name
        if kind.__module__ == "__main__" or _PATH.fullmatch(path) is None:
            return None
        found: Any = sys.modules.get(kind.__module__)
        for part in kind.__qualname__.split("."):
            found = getattr(found, part, None)
        return path if found is kind else None

    def _made(self, name: str, found: Any) -> T:
        """What a constructor gave, which may be anything where a class has its own ``__new__``."""
        if not isinstance(found, self.base):
            raise BadSetting(f"{self.what} '{name}' makes {found!r:.80}; expected an object of its class")
        return typing.cast(T, found)

    def split(self, text: str) -> tuple[str, dict[str, str]]:
        """The name in a text, and the text of each setting."""
        if not isinstance(text, str):
            raise BadSetting(f"a {self.what} is chosen by a text, not {text!r:.80}")
        match = _CHOICE.fullmatch(text.strip())
        if match is None or not _balanced(match["settings"] or ""):
            raise BadSetting(f"expected NAME or NAME(SETTING=VALUE, ...) for a {self.what}, not '{_short(text)}'")
        given: dict[str, str] = {}
        for part in _parts(match["settings"] or ""):
            name, value = assignment(part)
            if name in given:
                raise BadSetting(f"{name} of {self.what} '{match['name']}' is set twice; set it once")
            given[name] = value
        return match["name"], given


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | Path)


def _written(value: Any) -> str:
    """The text of a setting's value, as ``_read`` reads it.

    Raises:
        BadSetting: If there is none.
    """
    if value is None:
        return "none"
    if _is_plain(value):
        return str(value)
    if isinstance(value, tuple):
        return ";".join(map(_written, value))
    for base, registry in Registry.of.items():
        if isinstance(value, base):
            return registry.text(value)
    raise BadSetting(f"{value!r:.200} cannot be written as text")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _balanced(text: str) -> bool:
    """Whether every parenthesis has its other half; raises a BadSetting if they are nested too deep."""
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth > DEEPEST:
            raise BadSetting(f"'{_short(text)}' is nested more than {DEEPEST} deep")
        if depth < 0:
            return False
    return depth == 0


def _required(kind: type) -> list[str]:
    return [name for name, setting in settings_of(kind).items() if setting.default is inspect.Parameter.empty]


def assignment(text: str) -> tuple[str, str]:
    """Split ``name=value`` into its two sides."""
    name, equals, value = text.partition("=")
    if not (equals and name.strip()):
        raise BadSetting(f"expected SETTING=VALUE, not '{_short(text)}'")
    return name.strip(), value.strip()


def settings_of(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class's constructor, with their annotations resolved."""
    with blamed(f"the settings of {kind.__name__} cannot be read from its annotations"):
        parameters = inspect.signature(kind, eval_str=True).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    sys.path.extend(folder for folder in searched if folder not in sys.path)
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


def _named(text: str, annotation: Any, plugins: bool, depth: int) -> list[Named] | None:
    """What the value of a setting names, as ``_read`` reads it; None if it is a text."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if union else (annotation,)
    if type(None) in options and text.lower() == "none":
        return []
    for option in options:
        if option is str:
            return None
        if option in Registry.of:
            return [Registry.of[option].named(text, plugins=plugins, depth=depth)]
        if option is bool and text.lower() in ("true", "false"):
            return []
        if option in (int, float):
            try:
                option(text)
            except ValueError:
                continue
            return []
        if typing.get_origin(option) is tuple:
            inner = [_named(part, typing.get_args(option)[0], plugins, depth) for part in _parts(text, ";")]
            return None if None in inner else [one for some in inner if some is not None for one in some]
    return None


def _read(name: str, text: str, annotation: Any) -> Any:
    """A value from text, as an annotation says."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if union else (annotation,)
    if annotation is inspect.Parameter.empty:
        return text
    if type(None) in options and text.lower() == "none":
        return None
    for option in options:
        if option in Registry.of:
            return Registry.of[option].make(text)
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if option in (int, float, str, Path):
            try:
                value = option(text)
            except ValueError:
                continue
            if value == value:  # NaN is nothing that anyone means
                return value
        if typing.get_origin(option) is tuple:
            inner = typing.get_args(option)[0]
            return tuple(_read(name, part, inner) for part in _parts(text, ";"))
    kinds = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise BadSetting(f"{name}={_short(text)} cannot be read; expected {kinds}")
