"""One thread at a time for pipelines that share a part."""

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
    """A lock, and its place among all of them: whoever takes several takes them in one order."""

    place: int
    lock: Any


_places = itertools.count()
_locks: WeakKeyDictionary[Any, _Lock]
_making: threading.Lock


def _forget() -> None:
    """Begin without locks, as a fork must, since who held one at that time never lets go of it there."""
    global _locks, _making
    _locks, _making = WeakKeyDictionary(), threading.Lock()


_forget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _lock_of(part: Any) -> _Lock | None:
    """The lock of a pipeline's part, which all pipelines with this part share; None of what nothing can refer to."""
    part = getattr(part, "_orig_mod", part)  # of a compiled network
    try:
        with _making:
            return _locks.setdefault(part, _Lock(next(_places), threading.RLock()))
    except TypeError:
        return None


class Exclusive:
    """Lets one thread use a pipeline at a time, together with all that share a network or tokenizer with it.

    A call of a pipeline sets attributes on it and on its networks, so that two at once spoil each other's.

    Args:
        name: As in errors.
        parts: What the pipeline is made of.

    Raises:
        RollflowError: In a fork of a process that has loaded models (``forks.Home``).
    """

    def __init__(self, name: str, parts: Iterable[Any]) -> None:
        self._home = Home(name)
        self._own = [lock for lock in map(_lock_of, parts) if lock is not None]
        self._own.sort(key=lambda lock: lock.place)
        self._lock = threading.RLock()  # where there is nothing to share

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait until nobody else uses it. Raises a RollflowError in a fork, where nobody may ever let go of it."""
        self._home.check()
        with ExitStack() as held:
            for lock in dict.fromkeys(lock.lock for lock in self._own):
                held.enter_context(lock)
            held.enter_context(self._lock)
            yield


class _Guarded(Protocol):
    exclusive: Exclusive


def exclusively(method: Callable[P, T]) -> Callable[P, T]:
    """A method whose object's ``exclusive`` is held while it runs."""

    @wraps(method)
    def held(*args: P.args, **kwargs: P.kwargs) -> T:
        model: _Guarded = args[0]  # type: ignore[assignment]
        with model.exclusive():
            return method(*args, **kwargs)

    return held
