"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import cast

import typer

from rollflow.cli import errors
from rollflow.cli.app import app
from rollflow.cli.errors import complain, report

# Typer exports only this subclass of what it raises on bad usage; the class itself has moved between its versions.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 (the run failed), 2 (bad input) or 130 (Ctrl-C).

    Args:
        arguments: Those after the command's name; None takes them from the process.
    """
    if "" not in sys.path:
        sys.path.append("")  # module:attribute finds modules of the working directory, as under ``python -m``
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _taken(given, "--debug")
    token = errors.debug.set(debug)
    try:
        return _run(given)
    finally:
        errors.debug.reset(token)


def _taken(arguments: list[str], flag: str) -> bool:
    """Take a flag out of the arguments, wherever it stands before ``--``; whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if flag not in arguments[:end]:
        return False
    arguments.remove(flag)
    return True


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(args=arguments, prog_name="rollflow", standalone_mode=False, obj=arguments)
    except _UsageError as error:
        message = error.format_message().rstrip(".")
        if message.startswith("Usage:"):  # a group without a command answers with its help
            print(message, file=sys.stderr)
        else:
            complain(f"{message}; try --help")
        return 2
    except (typer.Abort, KeyboardInterrupt):
        complain("interrupted")
        return 130
    except (Exception, SystemExit) as error:
        return report(error)
    return code if isinstance(code, int) else 0
