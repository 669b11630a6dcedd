"""Error reports of the commands: one line on stderr, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer

from rollflow.errors import RollflowError, RollflowWarning, Stopped, described
from rollflow.files.printable import printable
from rollflow.runtime import interruption

DEBUG = "ROLLFLOW_DEBUG"
_LONGEST = 2000
"""Longest line, in characters, before its middle is left out; messages of plug-ins and servers have any length."""
debug: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether ``--debug`` was given."""


def complain(message: str) -> None:
    """Print an error as one line on stderr; if nobody reads it, the exit code still reports the error."""
    with interruption.unheard():
        _line("error", message)


def warn(message: str) -> None:
    """Print a warning as one line on stderr."""
    _line("warning", message)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning of the library once, as one line; other warnings are shown as usual."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RollflowWarning)
        original, printed = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
            if not issubclass(category, RollflowWarning):
                original(message, category, *where, **how)
            elif str(message) not in printed:
                printed.add(str(message))
                warn(str(message))

        warnings.showwarning = show
        yield


def _line(kind: str, message: str) -> None:
    line = printable(" ".join(message.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} [...] {line[-_LONGEST // 2 :]}"
    print(f"{kind}: {line}", file=sys.stderr)


def interrupted(message: str = "") -> int:
    """Print that the command was interrupted, as one line, and return the exit code: 128 plus the signal's number.

    If the cause is that nobody reads the output, only what was kept is reported.
    """
    interruption.wind_up()
    why = interruption.described()
    if message not in ("", why) or interruption.exit_code() != 128 + interruption.PIPE:
        complain(message or why)
    return interruption.exit_code()


def report(error: BaseException, code: int = 1) -> int:
    """Print an error as one line, after its traceback if the user asked for it, and return the exit code.

    Args:
        error: Error to report.
        code: Exit code of a failed run; bad input is always 2 and a bug always 1.
    """
    if isinstance(error, Stopped | KeyboardInterrupt):
        return interrupted(str(error) if isinstance(error, KeyboardInterrupt) else "")
    if debug.get() or os.environ.get(DEBUG, "") not in ("", "0"):
        with interruption.unheard():
            print(printable("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    if isinstance(error, RollflowError | ValueError | OSError) and str(error):
        complain(str(error))
        return 2 if isinstance(error, ValueError) else code
    if isinstance(error, SystemExit):
        complain(f"a reward, a model or a plug-in ended the command: {described(error)}")
    elif isinstance(error, MemoryError | ImportError) or "out of memory" in str(error):
        complain(described(error))
    else:
        complain(
            f"unexpected {described(error)} (a bug in rollflow or in a plug-in; run again with --debug and report it)"
        )
    return 1


@contextmanager
def refusing(code: int) -> Iterator[None]:
    """Report an error that the user can fix as one line, and exit with ``code``, or with 2 if a value was at fault."""
    try:
        yield
    except (RollflowError, ValueError, OSError, KeyboardInterrupt) as error:
        raise typer.Exit(report(error, code)) from None
