"""Errors of pipelines, told with the pipeline's name and what it was given."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rollflow.errors import RollflowError, described


@contextmanager
def explained(name: str, pipeline: Any, arguments: Mapping[str, Any], kind: type[RollflowError]) -> Iterator[None]:
    """Raise what a pipeline raises as an error that names the pipeline and what it was given.

    Errors of rollflow's own and those of memory pass unchanged.

    Args:
        name: Name of the model.
        pipeline: The pipeline.
        arguments: Arguments of the pipeline's call.
        kind: Class of the error.
    """
    try:
        yield
    except RollflowError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        given = ", ".join(f"{argument}={_short(value)}" for argument, value in arguments.items())
        scheduler = type(pipeline.scheduler).__name__.removeprefix("Probing")
        called = f"; it was called with {given}" if given else ""
        raise kind(
            f"{type(pipeline).__name__} of '{name}' failed: {described(error)}{_where(error)}{called}; check "
            f"its arguments, and whether it can sample with a {scheduler}"
        ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which the CPU and Apple's devices say in words alone."""
    said = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in str(error) for part in said)


def _short(value: Any) -> str:
    """A value as an error shows it: numbers and short texts, of anything else the type."""
    plain = value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 40)
    return repr(value) if plain else f"<{type(value).__name__}>"


def _where(error: Exception) -> str:
    """The line that raised an error which says nothing, as assertions do."""
    if str(error).strip() or error.__traceback__ is None:
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" at '{frame.line}' ({Path(frame.filename).name}, line {frame.lineno})"
