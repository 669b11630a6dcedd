"""Rows of many requests in calls of bounded size: split, padded, and halved where memory runs out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rollflow.errors import BadReward
from rollflow.rewards.scoring import MemoryLimit, free_memory, is_out_of_memory

Rows: TypeAlias = slice | list[int]
"""Positions of some of many rows."""

RowCall: TypeAlias = Callable[[Rows, Tensor], tuple[Any, ...]]
"""A call on some rows, given by positions and values; it returns tensors and lists that have one entry a row."""


class CallKind(NamedTuple):
    """Calls that take the same memory a row.

    Args:
        request: Class of the requests that they answer, or a name.
        callee: Id of the model or reward that is called.
        keeps_graph: Whether a graph is kept for the backward pass.
    """

    request: object
    callee: int
    keeps_graph: bool = False


@dataclass(frozen=True)
class Batching:
    """How the rows of several requests are passed through one call, or through as few as the limits allow.

    Args:
        padded: Whether a call of fewer rows is filled up, so that all calls have one shape.
        limits: Rows for which memory was enough, by the kind of call; kept up to date.
    """

    padded: bool = False
    limits: defaultdict[CallKind, MemoryLimit] = field(default_factory=lambda: defaultdict(MemoryLimit))

    def map(self, kind: CallKind | None, tensors: list[Tensor], call: RowCall, most: int) -> list[tuple[Any, ...]]:
        """Apply ``call`` to the rows of several tensors, at most ``most`` at once.

        If calls are padded, all but the last are full, and the last is filled up with its own last row.

        Args:
            kind: Kind of the call, by which it is known how many rows fit into memory; None sets no limit.
            tensors: One (B_i, ...) for each request.
            call: What is applied.
            most: The most rows of one call.

        Returns:
            What ``call`` gave for the rows of each tensor.
        """
        rows = torch.cat(tensors)
        calls = -(-len(rows) // most)
        bounds = [min(len(rows), most * i) if self.padded else len(rows) * i // calls for i in range(calls + 1)]
        answers = []
        for start, stop in pairwise(bounds):
            room = most - (stop - start) if self.padded else 0
            chosen: Rows = slice(None) if calls == 1 and not room else [*range(start, stop), *[stop - 1] * room]
            parts = self._within_memory(kind, chosen, rows[chosen], call)
            answers.append(tuple(part[: stop - start] for part in parts))
        sizes = [len(tensor) for tensor in tensors]
        return list(zip(*(_split(joined(part), sizes) for part in zip(*answers, strict=True)), strict=True))

    def _within_memory(self, kind: CallKind | None, rows: Rows, x: Tensor, call: RowCall) -> tuple[Any, ...]:
        """Apply ``call`` to all rows, or to half as many at once whenever memory runs out."""
        limit = MemoryLimit() if kind is None else self.limits[kind]
        positions, done, answers = list(range(len(x))) if isinstance(rows, slice) else rows, 0, list[tuple[Any, ...]]()
        while done < len(x):
            most = min(limit.most(len(x)), len(x) - done)
            part = rows if most == len(x) else positions[done : done + most]
            answer = _unless_out_of_memory(call, part, x[done : done + most], kind is not None and kind.keeps_graph)
            if answer is None:
                limit.halve(most)
                free_memory()
            else:
                answers.append(answer)
                done += most
        return answers[0] if len(answers) == 1 else tuple(joined(part) for part in zip(*answers, strict=True))


def _unless_out_of_memory(call: RowCall, rows: Rows, x: Tensor, keeps_graph: bool) -> tuple[Any, ...] | None:
    """The answer of ``call``; None if memory ran out, and might be enough for fewer rows."""
    try:
        return call(rows, x)
    except Exception as error:
        was_halved = isinstance(error, BadReward) and not keeps_graph  # the reward's own batches were, down to one row
        if was_halved or len(x) == 1 or not is_out_of_memory(error):
            raise
        return None


def joined(parts: Sequence[Any]) -> Any:
    """Join answers to consecutive rows: tensors, lists, or tuples of them."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, tuple):
        return type(first)(*map(joined, zip(*parts, strict=True)))  # a NamedTuple
    return [entry for part in parts for entry in part]


def at_rows(values: Sequence[Any], rows: Rows) -> list[Any]:
    """The values at some positions."""
    return list(values[rows]) if isinstance(rows, slice) else [values[row] for row in rows]


def _split(whole: Any, sizes: list[int]) -> list[Any]:
    """The inverse of ``joined`` for parts of these sizes."""
    if isinstance(whole, Tensor):
        return list(torch.split(whole, sizes))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]
