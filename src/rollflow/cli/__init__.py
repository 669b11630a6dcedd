"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import cast

import typer

from rollflow.cli.app import app, complain
from rollflow.errors import RollflowError

# Typer exports only this subclass of what it raises on bad usage; the class itself has moved between its versions.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 (the run failed), 2 (bad input) or 130 (Ctrl-C).

    Args:
        arguments: Those after the command's name; None takes them from the process.
    """
    if "" not in sys.path:
        sys.path.append("")  # module:attribute finds modules of the working directory, as under ``python -m``
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(args=given, prog_name="rollflow", standalone_mode=False, obj=given)
    except _UsageError as error:
        message = error.format_message().rstrip(".")
        if message.startswith("Usage:"):  # a group without a command answers with its help
            print(message, file=sys.stderr)
        else:
            complain(f"{message}; try --help")
        return 2
    except RollflowError as error:
        complain(str(error))
        return 2 if isinstance(error, ValueError) else 1
    except (typer.Abort, KeyboardInterrupt):
        complain("interrupted")
        return 130
    return code if isinstance(code, int) else 0
