"""Choices by name: the library's own classes, those of plug-ins, and settings given as text."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from rollflow.errors import BadSetting, blamed, unknown
from rollflow.quoting import divided, letters, quoted, unquoted

T = TypeVar("T")
DEEPEST = 32
"""Deepest nesting of choices within settings."""
_CHOICE = re.compile(r"(?P<name>[\w.:\-]+)\s*(\((?P<settings>.*)\))?", re.DOTALL)
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
searched: list[str] = []
"""Folders besides ``sys.path`` in which ``module:attribute`` finds modules; the command line adds the current one.

They join ``sys.path`` only when the user names such a module. Otherwise modules in somebody else's folder, which may be
the working directory, could be imported in place of plug-ins and of packages that are not installed.
"""
_LONGEST = 4096
"""Longest text, in characters, of a choice from an untrusted file."""


def plugins(group: str | None) -> dict[str, Any]:
    """Return the entry points of a group by name, without importing anything; none if the group is None."""
    return {} if group is None else {point.name: point for point in entry_points(group=group)}


class Named(NamedTuple):
    """A choice that a text names, looked up without creating an object.

    Args:
        kind: Class that is named.
        parts: Choices named in its settings.
        texts: Settings that are strings: paths, URLs, names of models.
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
        check: Function that raises a BadSetting if a class from outside the library is unusable; None checks nothing.
        functions: Class whose objects stand for functions, kept as their attribute ``function``, so that
            ``module:attribute`` can also name a function; ``functions.of`` returns the class of one. None if only
            classes can be named.
    """

    of: ClassVar[dict[type, Registry[Any]]] = {}
    """Every registry by its base class, so that settings of that type can be given by name."""

    def __init__(
        self,
        what: str,
        base: type,
        own: Mapping[str, type[T]],
        group: str | None = None,
        check: Callable[[type[T]], None] | None = None,
        functions: Any = None,
    ) -> None:
        super().__init__(own)
        self.check = check
        self.functions = functions
        self.what = what
        self.base = base
        self.group = group
        Registry.of[base] = self

    def _plugins(self) -> dict[str, Any]:
        return plugins(self.group)

    def find(self, name: str) -> type[T]:
        """Find the class of a name: the library's own, a plug-in's, or ``module:attribute``.

        Raises:
            UnknownName: If the name is not known.
            BadSetting: If it names something other than a class of this kind.
            RollflowError: If it cannot be imported.
        """
        if name in self:
            return self[name]
        plugins = self._plugins()
        if name not in plugins and ":" not in name:
            raise unknown(self.what, name, [*self, *plugins])
        if name not in plugins and _PATH.fullmatch(name) is None:
            raise BadSetting(f"{self.what} '{name}' is not a valid name; name a class of your own as module:attribute")
        with blamed(f"{self.what} '{name}' cannot be loaded", BadSetting):
            target: Any = plugins[name].load() if name in plugins else _imported(name)
        return self._checked(name, target)

    def _checked(self, name: str, target: Any) -> type[T]:
        """Return the class that a name stands for, if it is a usable one of this kind."""
        if self.functions is not None and callable(target) and not isinstance(target, type):
            target = self.functions.of(target)
        if not (isinstance(target, type) and issubclass(target, self.base)):
            got = f"the class {target.__qualname__}" if isinstance(target, type) else f"{target!r}"
            raise BadSetting(
                f"{self.what} '{name}' is {got[:120]}; expected a subclass of {self.base.__name__}{self._or_function}"
            )
        if inspect.isabstract(target):
            missing = ", ".join(sorted(getattr(target, "__abstractmethods__", ())))
            raise BadSetting(f"{self.what} '{name}' is an abstract class; implement {missing}")
        if "name" in self.base.__annotations__ and not isinstance(getattr(target, "name", None), str):
            raise BadSetting(f"{self.what} '{name}' has no name; give its class one: name = \"...\"")
        kind = typing.cast("type[T]", target)
        if self.check is not None:
            self.check(kind)
        return kind

    @property
    def _or_function(self) -> str:
        return "" if self.functions is None else " or a function"

    def named(self, text: str, *, plugins: bool = True, depth: int = 0) -> Named:
        """Look up the classes that a text from an untrusted file names; only registered ones, and no object is created.

        Args:
            text: Text as for ``make``.
            plugins: Whether to look up names of plug-ins, which imports them; ``module:attribute`` is never imported.
            depth: Number of choices that the text is nested in.

        Raises:
            UnknownName: On an unknown name or setting.
            BadSetting: On a text that ``make`` would refuse.
        """
        match = _CHOICE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
        if match is None or depth > DEEPEST:
            raise BadSetting(f"expected NAME or NAME(SETTING=VALUE, ...) for a {self.what}, not '{text:.80}'")
        name = match["name"]
        if name not in (self.names() if plugins else self):
            raise unknown(self.what, name, self.names())
        kind = self.find(name)
        known, parts, texts = settings_of(kind), list[Named](), list[str]()
        given = dict(assignment(part) for part in divided(match["settings"] or ""))
        for setting, value in given.items():
            if setting not in known:
                raise unknown(f"setting of {self.what} {name}", setting, known)
            inner = _named(value, known[setting].annotation, plugins, depth + 1)
            if inner is None:
                texts.append(f"{setting}={value}")
            else:
                parts += inner
        return Named(kind, tuple(parts), tuple(texts), tuple(given))

    def resolve(self, text: str) -> type[T] | T:
        """Return a choice without loading it: the class if the text is only a name, and an object otherwise.

        A class whose objects load nothing when they are created (``loads_later``) is instantiated, which checks its
        settings; so is a class from outside the library that does not set ``loads_later``.

        Raises:
            UnknownName: On an unknown name or setting.
            RollflowError: As for ``make``.
        """
        kind = self.find(text) if "(" not in text else None
        later = getattr(kind, "loads_later", False)
        create = kind is None or _required(kind) or (text not in self if later is None else later)
        return self.make(text) if create else typing.cast("type[T]", kind)

    def names(self) -> list[str]:
        """List every name without a colon that ``find`` knows: the library's own, then those of plug-ins."""
        return [*self, *(name for name in self._plugins() if name not in self)]

    def make(self, text: str, settings: Mapping[str, str] | None = None) -> T:
        """Create an object from text, ``name`` or ``name(setting=value, ...)``, with further settings if given.

        Values are parsed by the annotations of the settings. For a type that has a registry of its own, the value is
        itself such a text: ``quantile(q=0.9)``.

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
        with blamed(f"{self.what} '{called}' cannot be created"):
            return self._instance(called, kind(**values))

    def text(self, choice: T) -> str:
        """Return the text from which ``make`` creates an equal object: ``name`` or ``name(setting=value, ...)``.

        A dataclass is compared with the object that its text creates. Other classes may load weights when they are
        created, so their settings are taken from their attributes without such a check.

        Raises:
            BadSetting: If there is no such text: the class has no name, or a setting cannot be written.
        """
        kind: Any = type(choice)
        named = kind
        if self.functions is not None and isinstance(choice, self.functions):
            named, kind = choice.function, self.functions.of(choice.function)
        name = self._name_of(named)
        if name is None:
            raise BadSetting(f"{kind.__module__}.{kind.__qualname__} is not a registered {self.what}")
        given = []
        for setting, parameter in settings_of(kind).items():
            value = _kept(choice, setting, parameter.default)
            if value is inspect.Parameter.empty:
                raise BadSetting(f"{self.what} '{name}' does not keep its setting '{setting}' as an attribute")
            if value != parameter.default and str(value) != str(parameter.default):
                given.append(f"{setting}={written(value)}")
        text = f"{name}({', '.join(given)})" if given else name
        if is_dataclass(choice) and self.make(text) != choice:
            raise BadSetting(f"the settings of {choice!r:.200} cannot be written as text")
        return text

    def _name_of(self, kind: Any) -> str | None:
        """Return the name of a class or function: the library's own, a plug-in's, or ``module:attribute``.

        None if it has none, such as a lambda, or what is defined in a function or in ``__main__``.
        """
        if not (isinstance(getattr(kind, "__module__", None), str) and hasattr(kind, "__qualname__")):
            return None
        path = f"{kind.__module__}:{kind.__qualname__}"
        for name, own in self.items():
            if own is kind:
                return name
        for name, point in self._plugins().items():
            if getattr(point, "value", None) == path:
                return name
        if kind.__module__ == "__main__" or _PATH.fullmatch(path) is None:
            return None
        target: Any = sys.modules.get(kind.__module__)
        for part in kind.__qualname__.split("."):
            target = getattr(target, part, None)
        return path if target is kind else None

    def _instance(self, name: str, created: Any) -> T:
        """Return what a constructor created, which can be anything if a class has its own ``__new__``."""
        if not isinstance(created, self.base):
            raise BadSetting(f"{self.what} '{name}' creates {created!r:.80}; expected an object of its class")
        return typing.cast(T, created)

    def split(self, text: str) -> tuple[str, dict[str, str]]:
        """Split a text into the name and the text of each setting."""
        if not isinstance(text, str):
            raise BadSetting(f"a {self.what} must be chosen by a string, not {text!r:.80}")
        match = _CHOICE.fullmatch(text.strip())
        if match is None or not _balanced(match["settings"] or ""):
            raise BadSetting(f"expected NAME or NAME(SETTING=VALUE, ...) for a {self.what}, not '{_short(text)}'")
        given: dict[str, str] = {}
        for part in divided(match["settings"] or ""):
            name, value = assignment(part)
            if name in given:
                raise BadSetting(f"{name} of {self.what} '{match['name']}' is set twice; set it once")
            given[name] = value
        return match["name"], given


def _kept(choice: Any, setting: str, default: Any) -> Any:
    """Return a setting that an object keeps, privately if an attribute of that name means something else."""
    own = getattr(choice, "__dict__", {})
    return own.get(setting, own.get(f"_{setting}", getattr(choice, setting, default)))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | Path)


def written(value: Any) -> str:
    """Write a setting's value as text that ``_read`` can parse.

    Raises:
        BadSetting: If the value has no such text.
    """
    if value is None:
        return "none"
    if isinstance(value, str | Path):
        return quoted(str(value))
    if _is_plain(value):
        return str(value)
    if isinstance(value, tuple):
        return ";".join(map(written, value))
    for base, registry in Registry.of.items():
        if isinstance(value, base):
            return registry.text(value)
    raise BadSetting(f"{value!r:.200} cannot be written as text")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _balanced(text: str) -> bool:
    """Whether the parentheses are balanced; raises a BadSetting if they are nested too deeply."""
    depth = 0
    for letter, within in letters(text):
        depth += 0 if within else (letter == "(") - (letter == ")")
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
        parameters = inspect.signature(kind).parameters
        # Fields of a base class are annotated with names of its own module, where a signature does not look them up.
        hints = typing.get_type_hints(kind) if is_dataclass(kind) else {}
        if not parameters.keys() <= hints.keys():
            parameters, hints = inspect.signature(kind, eval_str=True).parameters, {}
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    sys.path.extend(folder for folder in searched if folder not in sys.path)
    target: Any = importlib.import_module(module)
    for part in attribute.split("."):
        target = getattr(target, part)
    return target


def _named(text: str, annotation: Any, plugins: bool, depth: int) -> list[Named] | None:
    """Look up the choices that a setting's value names, parsed as by ``_read``; None if the value is a string."""
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
        if typing.get_origin(option) is Literal and text in typing.get_args(option):
            return []
        if option in (int, float):
            try:
                option(text)
            except ValueError:
                continue
            return []
        if typing.get_origin(option) is tuple:
            inner = [
                _named(part, typing.get_args(option)[0], plugins, depth) for part in divided(text, ";", fresh=True)
            ]
            return None if None in inner else [choice for choices in inner if choices is not None for choice in choices]
    return None


_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}
"""What errors call the types of settings."""


def _in_words(option: Any) -> str:
    if typing.get_origin(option) is Literal:
        return " or ".join(map(str, typing.get_args(option)))
    return _WORDS.get(option, str(getattr(option, "__name__", option)))


def _read(name: str, text: str, annotation: Any) -> Any:
    """Parse a value by its annotation."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if union else (annotation,)
    if annotation is inspect.Parameter.empty:
        return unquoted(text)
    if type(None) in options and text.lower() == "none":
        return None
    for option in options:
        if option in Registry.of:
            return Registry.of[option].make(text)
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if typing.get_origin(option) is Literal and unquoted(text) in typing.get_args(option):
            return unquoted(text)
        if option in (int, float, str, Path):
            try:
                value = option(os.path.expanduser(unquoted(text)) if option is Path else unquoted(text))
            except ValueError:
                continue
            if value == value:  # NaN is never meant
                return value
        if typing.get_origin(option) is tuple:
            inner = typing.get_args(option)[0]
            return tuple(_read(name, part, inner) for part in divided(text, ";", fresh=True))
    kinds = " or ".join(map(_in_words, options))
    raise BadSetting(f"{name}={_short(text)} cannot be read; expected {kinds}")
