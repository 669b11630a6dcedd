"""Signals and closed pipes as exceptions, and contexts that protect work from them.

The library itself installs no signal handlers: Ctrl-C raises Python's ``KeyboardInterrupt`` at any time. The command
line runs under ``listening``, and only then do the other functions have an effect.
"""

from __future__ import annotations

import _thread
import errno
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
"""Seconds in which further signals count as the same one, since a terminal and a launcher may both send it."""

PIPE = 13
"""Number of SIGPIPE, which represents a closed output; Python itself ignores the signal."""

_WAKE: int | None = getattr(signal, "SIGURG", None)
"""A signal that has no effect by default, used to pass an interruption from another thread to the main one."""

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


class Interruption(KeyboardInterrupt):
    """A signal asked the process to end, or its output was closed.

    Args:
        message: Text to print.
    """


class _Listener:
    """Turns the first signal into an ``Interruption`` in the main thread."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.unanswered = False  # raised, but winding up has not begun
        self.winding_up = False
        self.again = False  # another signal came while winding up
        self.owed = False  # a signal came while it could not be raised
        self.shielded = 0
        self.skippable = 0
        self.unheard = 0
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

    def woken(self, number: int, frame: FrameType | None) -> None:
        """Raise in the main thread an interruption that another thread noticed."""
        if self.first is not None:
            self.arrived(self.first, frame)

    def expired(self, number: int, frame: FrameType | None) -> None:
        if self.skippable:
            raise Interruption(described())

    def swallowed(self) -> None:
        """Send the signal again a moment later, because it was raised in a destructor, which swallows exceptions."""
        self._raised = -GRACE
        number = self.first or signal.SIGINT
        again = threading.Timer(0.01, _wake_main if number == PIPE else _kill_self, (number,))
        again.daemon = True
        again.start()

    def raise_now(self) -> None:
        self.unanswered, self._raised = not self.winding_up, time.monotonic()
        raise Interruption(described())


_listener: _Listener | None = None


def _kill_self(number: int) -> None:
    os.kill(os.getpid(), number)


def _wake_main(number: int) -> None:
    if _WAKE is None:
        _thread.interrupt_main()
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)


@contextmanager
def listening(*, last: bool = False) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into an ``Interruption`` in the main thread.

    A signal that is ignored when the process starts (``nohup``) stays ignored. In other threads, where Python allows no
    handlers, this does nothing.

    Args:
        last: Whether the process ends afterwards. Signals during shutdown, for which Python would print a traceback,
            then end it silently, and are ignored if the process was already interrupted.
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
        if _WAKE is not None:
            woken = signal.signal(_WAKE, listener.woken)
        yield
    finally:
        if _WAKE is not None:
            signal.signal(_WAKE, signal.SIG_DFL if woken is None else woken)
        for number, handler in handlers.items():
            if last and handler is not signal.SIG_IGN:
                handler = signal.SIG_IGN if listener.first is not None else signal.SIG_DFL
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _listener, sys.unraisablehook = None, unraisable


@contextmanager
def handing_over(name: str, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give a signal to a server with its own way to end, unless the process ignores it or the system lacks it.

    Closed output is ignored meanwhile.

    Args:
        name: Name of the signal.
        handler: Function to call with its number.
    """
    number = getattr(signal, name, None)
    if _listener is None or number is None or signal.getsignal(number) is signal.SIG_IGN:
        with unheard():
            yield
        return
    before = signal.signal(number, handler)
    try:
        with unheard():
            yield
    finally:
        signal.signal(number, before)


def closed_pipe(code: int | None = None) -> None:
    """Interrupt the main thread because standard output or error was closed.

    May be called from any thread; outside of ``listening`` it does nothing.

    Args:
        code: Error number of the failed write. A closed terminal (EIO) is ignored in a process that was started to
            outlive it (``nohup``).

    Raises:
        Interruption: In the main thread, unless its work is protected.
    """
    listener = _listener
    if listener is None or listener.unheard or listener.winding_up:
        return
    hangup = getattr(signal, "SIGHUP", None)
    if code == errno.EIO and hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN:
        return
    if threading.current_thread() is threading.main_thread():
        listener.arrived(PIPE, None)
    else:
        listener.first = listener.first or PIPE
        _wake_main(PIPE)


@contextmanager
def unheard() -> Iterator[None]:
    """Ignore closed output within the block."""
    listener = _listener
    if listener is None:
        yield
        return
    listener.unheard += 1
    try:
        yield
    finally:
        listener.unheard -= 1


def wind_up() -> None:
    """Raise no more interruptions, except in ``skippable`` blocks, because results are being saved."""
    if _listener is not None:
        _listener.winding_up, _listener.unanswered = True, False


def unanswered() -> bool:
    """Whether an interruption was raised and winding up has not begun."""
    return _listener is not None and _listener.unanswered


def check() -> None:
    """Raise the interruption again if it was raised and some code swallowed it.

    Raises:
        Interruption: If it was swallowed.
    """
    if _listener is not None and unanswered():
        _listener.raise_now()


@contextmanager
def shielded() -> Iterator[None]:
    """Protect short work in the main thread; an interruption is raised at the end of the block."""
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
    """Let another signal, or a time limit, end the block while a run is wound up.

    Args:
        seconds: Time limit of the block; without effect outside of ``listening``.

    Raises:
        KeyboardInterrupt: If the block was ended.
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
    """Description of the interruption, as printed."""
    if _listener is None or _listener.first in (None, signal.SIGINT):
        return "interrupted"
    if _listener.first == PIPE:
        return "interrupted, because its output was closed"
    return f"interrupted by {signal.Signals(_listener.first).name}"


def exit_code() -> int:
    """Exit code of an interrupted process: 128 plus the number of the signal, as in shells."""
    return 128 + (signal.SIGINT if _listener is None or _listener.first is None else _listener.first)
