"""Batching of the rows of many requests in calls of bounded size, split, padded, and halved if memory runs out."""

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
"""Positions of a selection of rows."""

RowCall: TypeAlias = Callable[[Rows, Tensor], tuple[Any, ...]]
"""A call on selected rows, given by positions and values; returns tensors and lists with one entry per row."""


class CallKind(NamedTuple):
    """A kind of calls that take the same memory per row.

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
    """Passes the rows of several requests through one call, or as few calls as the limits allow.

    Args:
        padded: Whether to pad calls with fewer rows, so that all calls have the same shape.
        limits: Numbers of rows for which memory was enough, by the kind of call; kept up to date.
    """

    padded: bool = False
    limits: defaultdict[CallKind, MemoryLimit] = field(default_factory=lambda: defaultdict(MemoryLimit))

    def map(self, kind: CallKind | None, tensors: list[Tensor], call: RowCall, most: int) -> list[tuple[Any, ...]]:
        """Apply ``call`` to the rows of several tensors, at most ``most`` at once.

        If calls are padded, all but the last are full, and the last is filled up with its own last row.

        Args:
            kind: Kind of the call, whose limit on the rows that fit into memory applies; None sets no limit.
            tensors: One tensor (B_i, ...) for each request.
            call: Function to apply.
            most: Largest number of rows in one call.

        Returns:
            The results of ``call`` for the rows of each tensor.
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
        """Apply ``call`` to all rows; whenever memory runs out, halve the number of rows in a call."""
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
