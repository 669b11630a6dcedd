"""Inserting a mutant into loaded functions, so that nothing has to be imported again."""

from __future__ import annotations

import functools
import gc
import types
from collections import defaultdict
from collections.abc import Iterator
from typing import Any


def functions_of(path: str) -> list[types.FunctionType]:
    """List every existing function that was compiled from a file."""
    # By exact type: isinstance would wake lazy modules.
    functions = [one for one in gc.get_objects() if type(one) is types.FunctionType]
    return [one for one in functions if one.__code__.co_filename == path]


def caches() -> list[Any]:
    """List every ``functools.lru_cache`` of the library."""
    wrappers = [one for one in gc.get_objects() if type(one) is functools._lru_cache_wrapper]
    return [one for one in wrappers if str(one.__module__).startswith("rollflow")]


def swap(functions: list[types.FunctionType], source: str, path: str) -> bool:
    """Replace the code of functions by that of another source; return whether this was possible for all of them.

    Args:
        functions: Functions of the module, as returned by ``functions_of``.
        source: Source of the mutant, with the same number of lines as the module.
        path: Path of the module.
    """
    codes: dict[tuple[str, int], list[types.CodeType]] = defaultdict(list)
    for code in _codes(compile(source, path, "exec", dont_inherit=True)):
        codes[code.co_qualname, code.co_firstlineno].append(code)
    for function in functions:
        old = function.__code__
        new = codes.get((old.co_qualname, old.co_firstlineno), [])
        if len(new) != 1 or new[0].co_freevars != old.co_freevars:
            return False
        function.__code__ = new[0]
    return True


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)
