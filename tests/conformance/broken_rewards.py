"""Rewards that break one promise each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollflow.rewards import RewardModel
from rollflow.testing import RewardSuite

SAMPLES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
PROMPTS = ["a", "bb", "ccc", "dddd", "eeeee"]


class Meddled(RewardModel):
    """The brightness times the prompt's length, meddled with."""

    name = "meddled"
    description = "brightness times length"
    differentiable = True

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.wrong(samples.mean((1, 2, 3)) * torch.tensor([len(prompt) for prompt in prompts]))

    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards


class Undescribed(Meddled):
    """Says nothing."""

    description = " "


class SelfJudged(Meddled):
    """Judges itself."""

    held_out = ("meddled",)


class Unsure(Meddled):
    """Says only when it is made whether it is differentiable."""

    def __init__(self) -> None:
        self.differentiable = False  # type: ignore[misc]


class Column(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards[:, None]


class Undefined(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards / 0


class Indifferent(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards * 0


class Relative(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards - rewards.mean()


class OnePrompt(Meddled):
    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().score(samples, [prompts[0]] * len(samples))


class Drawing(Meddled):
    """Draws what it does not use."""

    def wrong(self, rewards: Tensor) -> Tensor:
        torch.randn(1)
        return rewards


class Tiring(Meddled):
    calls = 0

    def wrong(self, rewards: Tensor) -> Tensor:
        self.calls += 1
        return rewards / self.calls


class Scribbling(Meddled):
    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().score(samples.clamp_(0.2, 0.8), prompts)


class Cramped(Meddled):
    """Has no room for as many as it says."""

    batch_size = 8

    def wrong(self, rewards: Tensor) -> Tensor:
        return torch.cat([rewards[:6], rewards[6:] * 0])


class Detached(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards.detach()


class Stepped(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards.round()


class Kinked(Meddled):
    def wrong(self, rewards: Tensor) -> Tensor:
        return rewards + (rewards - rewards.detach()).abs().sqrt()


class Undeclared(Meddled):
    differentiable = False


class Exceeding(Meddled):
    bounds = (-1.0, -0.5)


class Upside(Meddled):
    bounds = (math.inf, -math.inf)


class Choosy(Meddled):
    def unfit(self, shape: tuple[int, ...]) -> str | None:
        return f"{shape} is not to its taste; give it another"


of = RewardSuite
both = (SAMPLES, PROMPTS)
CASES: list[tuple[Any, RewardModel, tuple[Any, ...]]] = [
    *((of.test_it_says_what_it_is, kind(), ()) for kind in (Undescribed, SelfJudged, Unsure)),
    *((of.test_one_finite_number_a_sample, kind(), both) for kind in (Column, Undefined, Indifferent)),
    *((of.test_scores_are_within_what_is_declared, kind(), both) for kind in (Exceeding, Upside, Choosy)),
    *((of.test_samples_do_not_depend_on_each_other, kind(), both) for kind in (Relative, OnePrompt)),
    *((of.test_nothing_is_drawn_kept_or_written_to, kind(), both) for kind in (Drawing, Tiring)),
    (of.test_nothing_is_drawn_kept_or_written_to, Scribbling(), (SAMPLES.clone(), PROMPTS)),
    (of.test_it_takes_its_batch_size_at_once, Cramped(), both),
    *(
        (of.test_gradients_reach_the_samples_if_it_says_so, kind(), both)
        for kind in (Detached, Stepped, Kinked, Undeclared)
    ),
]
