"""Checks of settings and arguments: their types and ranges, before anything is computed or loaded.

Every function returns a plain Python value (a NumPy integer becomes an ``int``, a list a ``tuple``), or raises a
``BadSetting`` that says which argument is wrong, what was expected and what was got.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rollflow.errors import BadSetting, unknown

T = TypeVar("T")

MOST = 2**31 - 1
"""Largest whole number where no other bound applies; it prevents overflows."""
MOST_NFE = 10**7
"""Largest budget; beyond it neither time nor memory would suffice."""
MOST_STEPS = 10**5
"""Largest number of evaluation times of a sampler."""
MOST_SEED = 2**63 - 1

_ARTICLES = {"a": "an", "e": "an", "i": "an", "o": "an"}


def refused(name: str, expected: str, value: object) -> BadSetting:
    """Make the error for a value that is not what was expected."""
    return BadSetting(f"{name} must be {expected}, not {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}; make an object of it: {value.__name__}(...)"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of about {int(value.bit_length() * math.log10(2))} digits"
    if value is None or isinstance(value, int | float | complex | str | bytes | list | tuple | set | dict):
        return reprlib.repr(value) if isinstance(value, list | tuple | set | dict) else _short(repr(value))
    try:
        return f"{with_article(type(value).__name__)} ({_short(repr(value))})"
    except Exception:  # a broken __repr__ must not hide the error
        return with_article(type(value).__name__)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article."""
    return f"{_ARTICLES.get(noun[:1].lower(), 'a')} {noun}"


def _range(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    parts = [
        f"{sign} {bound}"
        for sign, bound in ((">=", at_least), (">", above), ("<=", at_most), ("<", below))
        if bound is not None
    ]
    return " and ".join(parts)


def whole(name: str, value: object, *, at_least: int | None = None, at_most: int = MOST) -> int:
    """Check a whole number; NumPy integers are accepted, booleans are not."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if (-at_most if at_least is None else at_least) <= number <= at_most:
            return number
        if number > at_most:
            raise refused(name, f"a whole number <= {at_most}", number)
    raise refused(name, f"a whole number {_range(at_least, None, None, None)}".rstrip(), value)


def real(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """Check a finite number in a range; an ``int`` stays an ``int``."""
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond the largest float
            number = float(value)
    fits = (
        math.isfinite(number)
        and (at_least is None or number >= at_least)
        and (above is None or number > above)
        and (at_most is None or number <= at_most)
        and (below is None or number < below)
    )
    if not fits:
        raise refused(name, f"a finite number {_range(at_least, above, at_most, below)}".rstrip(), value)
    return value if isinstance(value, int) else number


def flag(name: str, value: object) -> bool:
    """Check a boolean."""
    if not isinstance(value, bool | np.bool_):
        raise refused(name, "True or False", value)
    return bool(value)


def text(name: str, value: object, *, what: str = "a string") -> str:
    """Check a string: not blank, and encodable, so that it can be written to a file."""
    if not isinstance(value, str):
        raise refused(name, what, value)
    if not value.strip():
        raise BadSetting(f"{name} is empty; give {what}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused(name, f"{what} in Unicode", value.encode(errors="backslashreplace").decode()) from None
    return value


def one_of(name: str, value: object, known: Iterable[str]) -> str:
    """Check that a name is one of the known ones."""
    if not isinstance(value, str):
        raise refused(name, f"one of {', '.join(known)}", value)
    names = list(known)
    if value not in names:
        raise unknown(name, value, names)
    return value


def instance(name: str, value: object, *kinds: type[Any], what: str | None = None) -> Any:
    """Check that an object is an instance of one of the classes, which errors call ``what`` if that is given."""
    if not isinstance(value, kinds):
        raise refused(name, what or " or ".join(with_article(kind.__name__) for kind in kinds), value)
    return value


def each(name: str, values: object, check: Callable[[str, Any], T], what: str = "a list") -> tuple[T, ...]:
    """Check every item of a list, a tuple or another collection; strings and mappings are refused."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Collection):
        raise refused(name, what, values)
    return tuple(check(f"{name}[{place}]", value) for place, value in enumerate(values))


def attributes(
    owner: object, known: Mapping[str, Callable[[str, Any], object]], *, what: str, optional: Collection[str] = ()
) -> None:
    """Check the attributes with which a user's class describes itself.

    Properties are skipped on a class, since only an object has their values.

    Args:
        owner: Object or class to check.
        known: Check of each attribute, called with the attribute's name in errors and its value.
        what: Kind of the owner in errors, such as ``reward``.
        optional: Attributes that may be missing.

    Raises:
        BadSetting: If an attribute, or the owner's ``name``, has the wrong type or is out of range.
    """
    kind = owner if isinstance(owner, type) else type(owner)
    called = text(f"name of the {what} {kind.__name__}", owner.name)  # type: ignore[attr-defined]
    for name, check in known.items():
        if name in optional and not hasattr(owner, name):
            continue
        value = getattr(owner, name)
        if not isinstance(value, property | functools.cached_property):
            check(f"{what} '{called}': {name}", value)


def fields(settings: Any, *, owner: str | None = None) -> None:
    """Check every field of a dataclass against its annotation, and replace the values by plain ones.

    The annotations bool, int, float, str, classes, None, unions of these, and tuples of one kind are checked; a float
    must be finite. Other annotations, and those that cannot be resolved, are ignored.

    Args:
        settings: Object to check, in its ``__post_init__``.
        owner: Name of the object in errors; None is its ``name`` attribute, or the name of its class.
    """
    kind: Any = type(settings)
    of = owner if owner is not None else _called(kind)
    hints = _hints(kind)
    for field in dataclasses.fields(settings):
        if field.init and field.name in hints:
            name = f"{field.name} of {of}" if of else field.name
            value = getattr(settings, field.name)
            plain = as_annotated(name, value, hints[field.name])
            if plain is not value:
                object.__setattr__(settings, field.name, plain)


class Settings:
    """Base class of frozen dataclasses of settings, which checks every field against its annotation (``fields``).

    A subclass that has its own ``__post_init__`` calls this one first.
    """

    def __post_init__(self) -> None:
        if dataclasses.is_dataclass(self):
            fields(self)


def _called(kind: type) -> str:
    name = getattr(kind, "name", None)
    return name if isinstance(name, str) else kind.__name__


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except Exception:  # names that exist only for type checkers, or within a function
        return {}


def as_annotated(name: str, value: object, annotation: Any) -> Any:
    """Check a value against one annotation, as ``fields`` does."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    options = typing.get_args(annotation) if union else (annotation,)
    if type(None) in options and value is None:
        return None
    options = tuple(option for option in options if option is not type(None))
    for option in options:
        if not _understood(option):
            return value
    if len(options) == 1:
        return _as(name, value, options[0])
    for option in options:
        try:
            return _as(name, value, option)
        except BadSetting:
            continue
    raise refused(name, " or ".join(map(_words, options)), value)


def _understood(option: Any) -> bool:
    if typing.get_origin(option) is tuple:
        inner = typing.get_args(option)
        return len(inner) == 2 and inner[1] is Ellipsis
    known = isinstance(option, type) and typing.get_origin(option) is None and option is not Any
    return known and not (getattr(option, "_is_protocol", False) or typing.is_typeddict(option))


def _as(name: str, value: object, option: Any) -> Any:
    if typing.get_origin(option) is tuple:
        inner = typing.get_args(option)[0]
        items = each(name, value, lambda of, item: as_annotated(of, item, inner), "a tuple")
        return value if isinstance(value, tuple) and all(a is b for a, b in zip(items, value, strict=True)) else items
    if option is bool:
        return flag(name, value)
    if option is int:
        return whole(name, value)
    if option is float:
        return real(name, value)
    if option is Path and isinstance(value, str):
        return value
    if not isinstance(value, option):
        raise refused(name, _words(option), value)
    return value


def _words(option: Any) -> str:
    plain = {bool: "True or False", int: "a whole number", float: "a finite number", str: "a string", Path: "a path"}
    return plain.get(option) or with_article(getattr(option, "__name__", str(option)))
