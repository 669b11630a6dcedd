"""The command line."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import typer

from rollflow import registry
from rollflow.cli import errors, streams
from rollflow.cli.app import app
from rollflow.cli.errors import complain
from rollflow.runtime import interruption

# Typer exports only a subclass of the error that it raises on bad usage; the error itself has moved between versions.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)

_LAST_SECONDS = 1.0
"""Longest time that the interpreter may take to shut down after an interruption."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 (the run failed) or 2 (bad input).

    If a signal ends the command, the code is 128 plus its number (130 for Ctrl-C); if nobody reads the output, it is
    141.

    Args:
        arguments: Arguments after the command's name; None takes them from the process.
    """
    if "" not in registry.searched:
        registry.searched.append("")  # module:attribute finds modules of the working directory
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _pop_flag(given, "--debug")
    token = errors.debug.set(debug)
    try:
        with interruption.listening(last=arguments is None), streams.watched() as watched, errors.warnings_as_lines():
            code = _run(given)
            if arguments is None and interruption.happened():
                _exit_within(_LAST_SECONDS, code)
    except KeyboardInterrupt as stop:  # at the last moment
        return errors.report(stop)
    finally:
        errors.debug.reset(token)
    return code or (streams.CLOSED_PIPE if any(stream.unread for stream in watched) else 0)


def _exit_within(seconds: float, code: int) -> None:
    """End the process even if the thread of a reward that does not answer keeps it alive."""

    def end() -> None:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _pop_flag(arguments: list[str], flag: str) -> bool:
    """Remove a flag from the arguments, anywhere before ``--``, and return whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if flag not in arguments[:end]:
        return False
    arguments.remove(flag)
    return True


def _completes(arguments: Sequence[str]) -> bool:
    """Whether the arguments concern shell completion, for which Typer exits before any command runs."""
    options = ("--install-completion", "--show-completion")
    return "_ROLLFLOW_COMPLETE" in os.environ or any(one.startswith(options) for one in arguments[:1])


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(args=arguments, prog_name="rollflow", standalone_mode=False, obj=arguments)
    except _UsageError as error:
        message = error.format_message().rstrip(".")
        if message.startswith("Usage:"):  # a group without a command prints its help
            with interruption.unheard():
                print(message, file=sys.stderr)
        else:
            complain(f"{message}; try --help")
        return 2
    except typer.Abort:
        return errors.report(KeyboardInterrupt())
    except KeyboardInterrupt as stop:
        return errors.report(stop)
    except BaseException as error:  # a plug-in may raise anything
        if isinstance(error, SystemExit) and _completes(arguments):
            return error.code if isinstance(error.code, int) else 0
        return errors.report(error)
    if interruption.unanswered():  # Typer swallowed it
        return errors.report(KeyboardInterrupt())
    return code if isinstance(code, int) else 0
