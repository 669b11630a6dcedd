"""Checks the shapes that the signatures of rollflow's functions state in jaxtyping's notation while tests run.

jaxtyping's own import hook wraps every function and checks every type, which hides the errors that the library itself
raises for wrong arguments. This one wraps only functions whose types state a shape, and checks only shapes.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any, ForwardRef, get_args, get_origin

from beartype.door import is_bearable
from jaxtyping import AbstractArray
from jaxtyping._storage import pop_shape_memo, push_shape_memo
from torch import Tensor

_CALLS = 50
"""Number of calls of each function that are checked in each test."""

_LEFT: list[list[int]] = []
"""For each function, a list with the number of calls still to be checked."""


class ShapeError(AssertionError):
    """A tensor whose shape or dtype differs from the signature."""


def check_shapes(*packages: str) -> None:
    """Check the shapes in the signatures of all functions of these packages from now on.

    Args:
        packages: Names of packages that have not been imported yet.
    """
    early = sorted(name for name in sys.modules if name.startswith(packages))
    assert not early, f"imported before their shapes could be checked: {', '.join(early)}"
    sys.meta_path.insert(0, _Finder(packages))


def renew() -> None:
    """Check the next calls of every function again; called at the start of each test."""
    for left in _LEFT:
        left[0] = _CALLS


class _Finder(MetaPathFinder):
    """Finds modules as Python does, and wraps their functions after they have been executed."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(f"{fullname}.".startswith(f"{package}.") for package in self._packages):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: ModuleType) -> None:
                execute(module)
                wrap(module)

            spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec


def wrap(module: ModuleType) -> None:
    """Replace the functions and methods that a module defines and whose types state a shape."""
    names = vars(module)
    for name, value in list(names.items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            names[name] = checked(value, names)
        elif isinstance(value, type):
            for attribute, member in list(vars(value).items()):
                wrapped = _member(member, names)
                if wrapped is not member:
                    setattr(value, attribute, staticmethod(wrapped) if attribute == "__new__" else wrapped)


def _member(member: Any, names: dict[str, Any]) -> Any:
    """A method, class method, static method or property whose shapes are checked; any other as it is."""
    if isinstance(member, classmethod | staticmethod):
        inner = checked(member.__func__, names)
        return member if inner is member.__func__ else type(member)(inner)
    if isinstance(member, property) and member.fget is not None:
        getter = checked(member.fget, names)
        return member if getter is member.fget else member.getter(getter)
    return checked(member, names) if isinstance(member, FunctionType) else member


def checked(function: Callable[..., Any], names: dict[str, Any]) -> Callable[..., Any]:
    """Wrap a function to check shapes when it is called and when it returns; unchanged if its types state none.

    Most of these functions take less time than a check. So only the first calls in a test are checked, see ``renew``,
    and shapes that have passed are not checked again. Of a generator only the arguments and the return value are
    checked, not what it yields and is sent.
    """
    hints = {name: _resolved(hint, names) for name, hint in getattr(function, "__annotations__", {}).items()}
    is_generator = inspect.isgeneratorfunction(function)
    if is_generator and get_origin(hints.get("return")) is not None:
        hints["return"] = get_args(hints["return"])[-1]
    shaped = {name: hint for name, hint in hints.items() if _states_a_shape(hint)}
    if not shaped:
        return function
    signature, passed, left = inspect.signature(function), set[Any](), [_CALLS]
    before = {name: hint for name, hint in shaped.items() if name != "return"}
    _LEFT.append(left)

    def check(args: Any, kwargs: Any, result: dict[str, Any], key: Any) -> None:
        with _axes(signature, args, kwargs) as arguments:
            values = {**arguments, **result}
            for name, hint in (shaped if result else before).items():
                if not is_bearable(values[name], hint):
                    value = values[name]
                    got = f"{value.dtype} of shape {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)
                    raise ShapeError(f"{name} of {function.__qualname__} is {got}, expected {hint}")
        passed.add(key)

    if is_generator:

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            if left[0] <= 0:
                return (yield from function(*args, **kwargs))
            left[0] -= 1
            if (key := _key(*args, *kwargs, *kwargs.values())) not in passed:
                check(args, kwargs, {}, key)
            value = yield from function(*args, **kwargs)
            if "return" in shaped and (key := (key, _key(value))) not in passed:
                check(args, kwargs, {"return": value}, key)
            return value

        return generator

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if left[0] <= 0:
            return function(*args, **kwargs)
        left[0] -= 1
        if (key := _key(*args, *kwargs, *kwargs.values())) not in passed:
            check(args, kwargs, {}, key)
        value = function(*args, **kwargs)
        if "return" in shaped and (key := (key, _key(value))) not in passed:
            check(args, kwargs, {"return": value}, key)
        return value

    return plain


def _key(*values: Any) -> Any:
    """Key of everything that a shape can depend on: shapes and dtypes, whole numbers, strings, and other types."""
    return tuple(
        [
            (value.shape, value.dtype)
            if isinstance(value, Tensor)
            else value
            if value is None or value.__class__ is int or value.__class__ is str
            else value.__class__
            for value in values
        ]
    )


@contextmanager
def _axes(signature: inspect.Signature, args: Any, kwargs: Any) -> Iterator[dict[str, Any]]:
    """Bind the arguments of a call; within the block, axes of the same name have the same size."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    push_shape_memo(bound.arguments)
    try:
        yield bound.arguments
    finally:
        pop_shape_memo()


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """Resolve an annotation; returns None if only type checkers can."""
    text = hint.__forward_arg__ if isinstance(hint, ForwardRef) else hint
    try:
        return eval(text, names) if isinstance(text, str) else text
    except NameError:
        return None


def _states_a_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return get_origin(hint) is not Callable and any(_states_a_shape(inner) for inner in get_args(hint))
