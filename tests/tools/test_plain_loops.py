"""The plain loops that benchmarks compare with: as many NFE as the search may spend, each scored once, and a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from plain_loops import Loop, rbf, svdd
from rollflow.models import FlowModel
from rollflow.rewards import RewardModel


class Still(FlowModel):
    """The clean estimate of a state is the state itself."""

    name = "still"
    description = "a velocity of 0"
    shape = (2,)

    def encode(self, prompt: str) -> str:
        return prompt

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return torch.zeros_like(x)

    def decode(self, x0: Tensor) -> Tensor:
        return x0


class First(RewardModel):
    """The first coordinate; keeps all scores."""

    name = "first"

    def __init__(self) -> None:
        self.seen: list[float] = []

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.seen += samples[:, 0].tolist()
        return samples[:, 0]


@pytest.mark.parametrize(("search", "nfe"), [(rbf, 100), (partial(rbf, initial=2), 24), (svdd, 60), (svdd, 40)])
def test_a_loop_spends_its_budget_and_scores_every_candidate(search: Callable[..., float], nfe: int) -> None:
    reward, best = First(), []
    for seed in range(5):
        loop = Loop(Still(), reward, "a", seed)
        best.append(search(loop, nfe))
        assert loop.nfe == nfe
        assert len(reward.seen) == nfe * (seed + 1)
        assert best[-1] in reward.seen[-nfe:]
    assert torch.tensor(best).mean() > torch.tensor(reward.seen).mean()
