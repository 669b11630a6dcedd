"""Prompts as a pipeline's encoders gave them, and those of many rows in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the pipeline's encoders gave it.

    Args:
        prompt: The text.
        answers: What each call of a method that reads the prompt (``hooked.Hooked``) returned, in their order.
    """

    prompt: str
    answers: tuple[Any, ...]

    @cached_property
    def shapes(self) -> Any:
        """What rows must share to share a call; the prompt itself where the pipeline reads it in its own way."""
        return shapes(self.answers) if self.answers else self.prompt


def _parts(answer: Any) -> bool:
    """Whether an answer is made of parts, and not a list with an item a prompt."""
    return isinstance(answer, tuple) or (isinstance(answer, list) and len(answer) != 1)


def shapes(answer: Any) -> Any:
    """The shapes of all tensors of an answer."""
    if isinstance(answer, Tensor):
        return tuple(answer.shape)
    return tuple(map(shapes, answer)) if isinstance(answer, tuple | list) else None


def together(answers: Sequence[Any]) -> Any:
    """The answer for all prompts, from those for one prompt each.

    Tensors are joined along their first dimension of size 1; what has none is shared by all prompts, as positions are.
    """
    first = answers[0]
    if _parts(first):
        return type(first)(together(parts) for parts in zip(*answers, strict=True))
    if isinstance(first, list):
        return [item for answer in answers for item in answer]
    if isinstance(first, Tensor) and 1 in first.shape:
        return torch.cat(list(answers), dim=first.shape.index(1))
    return first
