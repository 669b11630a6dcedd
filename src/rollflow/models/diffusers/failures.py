"""Errors of pipelines, with the pipeline's name and arguments."""

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
    """Raise exceptions of a pipeline as errors that name the pipeline and its arguments.

    Errors of rollflow and out-of-memory errors pass unchanged.

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
        shown = ", ".join(f"{argument}={_short(value)}" for argument, value in arguments.items())
        scheduler = type(pipeline.scheduler).__name__.removeprefix("Probing")
        called = f"; it was called with {shown}" if shown else ""
        raise kind(
            f"{type(pipeline).__name__} of '{name}' failed: {described(error)}{_where(error)}{called}; check "
            f"its arguments, and whether it can sample with {scheduler}"
        ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which CPUs and Apple's devices report only in the text of the error."""
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)


def _short(value: Any) -> str:
    """Show a value in an error: numbers and short texts as they are, anything else by its type."""
    plain = value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 40)
    return repr(value) if plain else f"<{type(value).__name__}>"


def _where(error: Exception) -> str:
    """The source line that raised an error without text, such as an assertion."""
    if str(error).strip() or error.__traceback__ is None:
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" at '{frame.line}' ({Path(frame.filename).name}, line {frame.lineno})"
