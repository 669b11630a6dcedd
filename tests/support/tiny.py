"""A tiny image model with a closed form, and rewards for it, under the names of the command line's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rollflow.models import MODELS, FlowModel
from rollflow.models.scenes import PromptError
from rollflow.rewards import REWARDS, RewardModel


class TinyModel(FlowModel):
    """Images of 3 x 8 x 8 pixels, each N(0, 0.5^2), with the exact velocity on the linear interpolant.

    Attributes:
        loads: Number of times that it was constructed.
        interrupt_at: Number of the call during which the user presses Ctrl-C.
    """

    name = "scenes-base"
    description = "tiny pictures"
    suite_family = "scenes"
    rows_per_nfe = 2
    shape = (3, 8, 8)
    loads: ClassVar[int] = 0
    interrupt_at: ClassVar[int | None] = None

    def __init__(self) -> None:
        type(self).loads += 1
        self.calls = 0

    def encode(self, prompt: str) -> str:
        if "unicorn" in prompt:
            raise PromptError("'unicorn' is not in the vocabulary\nof the tiny model")
        return prompt

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        t = t.to(x.dtype).reshape(-1, 1, 1, 1)
        clean = 0.25 * (1 - t) / (0.25 * (1 - t) ** 2 + t**2) * x
        return (x - clean) / t

    def decode(self, x0: Tensor) -> Tensor:
        return (x0 + 0.5).clamp(0, 1)


class TinyTurbo(TinyModel):
    """The same model, declared to be step-distilled."""

    name = "scenes-turbo"
    few_step = True
    rows_per_nfe = 1


class Redness(RewardModel):
    """The mean of the red pixels."""

    name = "caption"
    description = "redness, in [0, 1]"
    held_out: ClassVar[tuple[str, ...]] = ("judge",)

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 0].mean((1, 2))


class Judge(Redness):
    """The mean of the red pixels minus that of the blue ones."""

    name = "judge"
    held_out: ClassVar[tuple[str, ...]] = ()

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return (samples[:, 0] - samples[:, 2]).mean((1, 2))


class Broken(Redness):
    """A reward that is never a number."""

    name = "broken"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.full((len(samples),), torch.nan)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the packaged models and rewards by these in every module that imports this fixture."""
    register(monkeypatch)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the packaged models and rewards by these until ``monkeypatch`` is undone."""
    for registry, kinds in ((MODELS, (TinyModel, TinyTurbo)), (REWARDS, (Redness, Judge, Broken))):
        for name in reversed(list(registry)):  # so that they come back in their order
            monkeypatch.delitem(registry, name)
        for kind in kinds:
            monkeypatch.setitem(registry, kind.name, kind)
    for kind in (TinyModel, TinyTurbo):
        monkeypatch.setattr(kind, "loads", 0)
        monkeypatch.setattr(kind, "interrupt_at", None)
