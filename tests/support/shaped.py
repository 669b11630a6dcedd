"""Functions and classes whose types state shapes, for the tests of how these are checked."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def plain(x: Float[Tensor, " B *state"], t: Float64[Tensor, " B"], name: int = 0) -> Float[Tensor, " B"]:
    return x.flatten(1).sum(1)[: len(t) - name]


def generator(x: Float[Tensor, " B d"]) -> Generator[str, Tensor, Float[Tensor, " B d"]]:
    answer = yield "a request"
    return answer


@dataclass(frozen=True)
class Frozen:
    weights: Float[Tensor, " n"]
    means: Float[Tensor, " n d"]

    @property
    def first(self) -> Float[Tensor, " d"]:
        return self.means

    @classmethod
    def of(cls, means: Float[Tensor, " n d"]) -> Frozen:
        return cls(torch.ones(len(means)), means)


class Pair(NamedTuple):
    mean: Float[Tensor, " B d"]
    std: Float64[Tensor, " B"]
