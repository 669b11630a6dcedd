"""Encoded prompts of pipelines, and their combination for calls with many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt encoded by a pipeline.

    Args:
        prompt: Text of the prompt.
        answers: Results of the pipeline's methods that read the prompt (``hooked.Hooked``), in order of their calls.
    """

    prompt: str
    answers: tuple[Any, ...]

    @cached_property
    def shapes(self) -> Any:
        """Key that rows must have in common to share a call; the prompt itself if the pipeline reads it otherwise."""
        return shapes(self.answers) if self.answers else self.prompt


def _parts(answer: Any) -> bool:
    """Whether an answer consists of parts, rather than being a list with one item per prompt."""
    return isinstance(answer, tuple) or (isinstance(answer, list) and len(answer) != 1)


def shapes(answer: Any) -> Any:
    """Collect the shapes of all tensors in an answer."""
    if isinstance(answer, Tensor):
        return tuple(answer.shape)
    return tuple(map(shapes, answer)) if isinstance(answer, tuple | list) else None


def together(answers: Sequence[Any]) -> Any:
    """Combine answers for one prompt each to the answer for all prompts.

    Tensors are concatenated along their first dimension of size 1; those without one, such as positions, are shared.
    """
    first = answers[0]
    if _parts(first):
        return type(first)(together(parts) for parts in zip(*answers, strict=True))
    if isinstance(first, list):
        return [item for answer in answers for item in answer]
    if isinstance(first, Tensor) and 1 in first.shape:
        return torch.cat(list(answers), dim=first.shape.index(1))
    return first
