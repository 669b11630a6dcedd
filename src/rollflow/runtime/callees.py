"""Calls of models, rewards and observers, which name them in errors and undo their changes of torch's settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from rollflow.errors import RollflowError, blamed


class _Setting(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], Any]


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


_OF_THREADS = (
    _Setting(torch.is_grad_enabled, torch._C._set_grad_enabled),
    _Setting(torch.get_default_device, torch.set_default_device),
    _Setting(torch.get_num_threads, torch.set_num_threads),
)
_OF_ALL = (
    _Setting(torch.get_default_dtype, torch.set_default_dtype),
    _Setting(_determinism, lambda both: torch.use_deterministic_algorithms(both[0], warn_only=both[1])),
)

_entering = threading.Lock()
_inside = 0
_before: list[Any] = []
"""Settings of all threads, as they were when the first thread entered."""


class called:
    """Run foreign code with ``settings_kept``, and raise its exceptions as ``blamed`` does.

    Args:
        who: Beginning of the error: the code that is called, and what failed.
        kind: Class of the error.
    """

    def __init__(self, who: str, kind: type[RollflowError] = RollflowError) -> None:
        self._kept, self._blamed = settings_kept(), blamed(who, kind)

    def __enter__(self) -> None:
        self._kept.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        try:
            self._blamed.__exit__(kind, error, traceback)
        finally:
            self._kept.__exit__(None, None, None)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Restore torch's global settings after foreign code, except the states of random number generators."""
    global _inside
    own = [setting.get() for setting in _OF_THREADS]
    with _entering:
        if not _inside:  # other threads inside may have changed them temporarily
            _before[:] = [setting.get() for setting in _OF_ALL]
        _inside += 1
    try:
        yield
    finally:
        _put_back(_OF_THREADS, own)
        with _entering:
            _inside -= 1
            if not _inside:
                _put_back(_OF_ALL, _before)


def _put_back(settings: tuple[_Setting, ...], values: list[Any]) -> None:
    for setting, value in zip(settings, values, strict=True):
        if setting.get() != value:
            setting.set(value)
