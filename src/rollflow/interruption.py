"""Signals that end a process, as exceptions, and the work that they may not disturb.

The library installs no signal handlers: there Ctrl-C is Python's ``KeyboardInterrupt``, at any time. The command line
runs under ``listening``, and only then do the other functions change what happens.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 0.3
"""Seconds in which further signals are taken for the same one: a terminal and a launcher may both send it."""

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class Interruption(KeyboardInterrupt):
    """A signal asked the process to end.

    Args:
        message: What is printed.
    """


class _Listener:
    """Turns the first signal into an ``Interruption`` of the main thread."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.unanswered = False  # raised, but nobody has begun to wind up
        self.winding_up = False
        self.again = False  # one more came after that
        self.owed = False  # came while it could not be raised
        self.shielded = 0
        self.skippable = 0
        self._raised = -GRACE

    def arrived(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._raised < GRACE:
            return
        self.first = self.first or number
        if self.winding_up:
            self.again = True
            if not self.skippable:
                return
        elif self.shielded:
            self.owed = True
            return
        self.raise_now()

    def expired(self, number: int, frame: FrameType | None) -> None:
        if self.skippable:
            raise Interruption(described())

    def swallowed(self) -> None:
        """Come again, a moment later: it was raised in a destructor, from which nothing propagates."""
        self._raised = -GRACE
        again = threading.Timer(0.01, os.kill, (os.getpid(), self.first or signal.SIGINT))
        again.daemon = True
        again.start()

    def raise_now(self) -> None:
        self.unanswered, self._raised = not self.winding_up, time.monotonic()
        raise Interruption(described())


_listener: _Listener | None = None


@contextmanager
def listening(*, last: bool = False) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into an ``Interruption`` that is raised in the main thread.

    A signal that the process was started to ignore (``nohup``) stays ignored. Elsewhere than in the main thread, where
    Python allows no handlers, this does nothing.

    Args:
        last: Whether the process ends after it: signals of its last moments, in which Python would print a traceback,
            end it without a word, and are ignored if it was interrupted anyway.
    """
    global _listener
    if threading.current_thread() is not threading.main_thread() or _listener is not None:
        yield
        return
    listener = _Listener()
    unraisable = sys.unraisablehook

    def hook(what: Any) -> None:
        if isinstance(what.exc_value, Interruption):
            listener.swallowed()
        else:
            unraisable(what)

    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    _listener, sys.unraisablehook = listener, hook
    try:
        for number, handler in handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, listener.arrived)
        yield
    finally:
        for number, handler in handlers.items():
            if last and handler is not signal.SIG_IGN:
                handler = signal.SIG_IGN if listener.first is not None else signal.SIG_DFL
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _listener, sys.unraisablehook = None, unraisable


@contextmanager
def handing_over(name: str, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a server that ends in its own way have a signal, unless the process ignores it or has no such signal.

    Args:
        name: Of the signal.
        handler: Called with its number.
    """
    number = getattr(signal, name, None)
    if _listener is None or number is None or signal.getsignal(number) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def wind_up() -> None:
    """From now on raise nothing, except in what is ``skippable``: what was found until now is being kept."""
    if _listener is not None:
        _listener.winding_up, _listener.unanswered = True, False


def unanswered() -> bool:
    """Whether it was raised, and nobody has said so yet."""
    return _listener is not None and _listener.unanswered


def check() -> None:
    """Raise the interruption once more if it was raised and someone has swallowed it.

    Raises:
        Interruption: Then.
    """
    if _listener is not None and unanswered():
        _listener.raise_now()


@contextmanager
def shielded() -> Iterator[None]:
    """Work in the main thread that is short and must be whole; what interrupts it is raised at its end."""
    listener = _listener
    if listener is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    listener.shielded += 1
    try:
        yield
    finally:
        listener.shielded -= 1
    if listener.owed and not listener.shielded and not listener.winding_up:
        listener.owed = False
        listener.raise_now()


@contextmanager
def skippable(seconds: float) -> Iterator[None]:
    """Work that is worth little while a run is wound up: one more signal, or the time, cuts it short.

    Args:
        seconds: The most that it may take; nothing bounds it where no signals are listened to.

    Raises:
        KeyboardInterrupt: If it was cut short.
    """
    listener = _listener
    if listener is None or not listener.winding_up or threading.current_thread() is not threading.main_thread():
        yield
        return
    if listener.again:
        raise Interruption(described())
    before = None
    if hasattr(signal, "setitimer") and listener.first is not None:
        before = signal.signal(signal.SIGALRM, listener.expired)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    listener.skippable += 1
    try:
        yield
    finally:
        listener.skippable -= 1
        if before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def happened() -> bool:
    """Whether a signal asked the process to end."""
    return _listener is not None and _listener.first is not None


def described() -> str:
    """What interrupted, in words."""
    if _listener is None or _listener.first in (None, signal.SIGINT):
        return "interrupted"
    return f"interrupted by {signal.Signals(_listener.first).name}"


def exit_code() -> int:
    """Of a process that was interrupted: 128 and the signal's number, as shells have it."""
    return 128 + (signal.SIGINT if _listener is None or _listener.first is None else _listener.first)
