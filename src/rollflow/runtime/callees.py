"""How models, rewards and observers are called: what they raise names them, and what they set for all of torch ends."""

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
"""What is set for all threads, as the first of those found it who are inside."""


@contextmanager
def called(who: str, kind: type[RollflowError] = RollflowError) -> Iterator[None]:
    """Raise what foreign code raises as ``blamed`` does, with ``settings_kept``.

    Args:
        who: Who is called, and what failed.
        kind: The error that is raised.
    """
    with settings_kept(), blamed(who, kind):
        yield


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put torch's global settings back that foreign code has changed, but for its random number generators."""
    global _inside
    own = [setting.get() for setting in _OF_THREADS]
    with _entering:
        if not _inside:  # others that are inside may have changed them for a moment
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
