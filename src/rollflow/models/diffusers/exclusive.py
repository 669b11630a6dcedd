"""Locks that let only one thread at a time use pipelines that share a part."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from rollflow.runtime.forks import Home

P = ParamSpec("P")
T = TypeVar("T")


class _Lock(NamedTuple):
    """A lock and its rank; several locks are always acquired in order of rank, to avoid deadlocks."""

    place: int
    lock: Any


_places = itertools.count()
_locks: WeakKeyDictionary[Any, _Lock]
_making: threading.Lock


def _forget() -> None:
    """Start without locks, as a fork must: locks held by other threads would never be released there."""
    global _locks, _making
    _locks, _making = WeakKeyDictionary(), threading.Lock()


_forget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _lock_of(part: Any) -> _Lock | None:
    """Return the lock shared by all pipelines with this part; None if the part supports no weak reference."""
    part = getattr(part, "_orig_mod", part)  # unwraps a compiled network
    try:
        with _making:
            return _locks.setdefault(part, _Lock(next(_places), threading.RLock()))
    except TypeError:
        return None


class Exclusive:
    """Lets only one thread at a time use a pipeline and all others that share a network or tokenizer with it.

    A call of a pipeline sets attributes on it and on its networks, so simultaneous calls would interfere.

    Args:
        name: Name of the pipeline in errors.
        parts: Components of the pipeline.

    Raises:
        RollflowError: In a fork of a process that has loaded models (``forks.Home``).
    """

    def __init__(self, name: str, parts: Iterable[Any]) -> None:
        self._home = Home(name)
        self._own = [lock for lock in map(_lock_of, parts) if lock is not None]
        self._own.sort(key=lambda lock: lock.place)
        self._lock = threading.RLock()  # used even if there is nothing to share

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait until no other thread uses the pipeline. Raises a RollflowError in a fork."""
        self._home.check()
        with ExitStack() as locks:
            for lock in dict.fromkeys(lock.lock for lock in self._own):
                locks.enter_context(lock)
            locks.enter_context(self._lock)
            yield


class _Guarded(Protocol):
    exclusive: Exclusive


def exclusively(method: Callable[P, T]) -> Callable[P, T]:
    """Decorate a method to hold its object's ``exclusive`` while it runs."""

    @wraps(method)
    def locked(*args: P.args, **kwargs: P.kwargs) -> T:
        model: _Guarded = args[0]  # type: ignore[assignment]
        with model.exclusive():
            return method(*args, **kwargs)

    return locked
