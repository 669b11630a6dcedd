"""What requests cost, and how those of many searches are answered in a few calls of model, decoder and reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rollflow.conversions import denoised_from_velocity
from rollflow.engine.job import Task
from rollflow.engine.meter import Spending
from rollflow.errors import BadReward
from rollflow.models.base import FlowModel
from rollflow.requests import Decode, Grad, Request, Reward, Slope, Velocity
from rollflow.rewards.base import RewardModel

Rows: TypeAlias = slice | list[int]
"""Some of many rows: where they are."""


class Asked(NamedTuple):
    """A request and who asks.

    Args:
        request: Not a ``Save``.
        task: Of the job that asks.
        condition: Its encoded prompt.
    """

    request: Any
    task: Task
    condition: Any


def price(request: Request, model: FlowModel) -> Spending:
    """What answering a request costs."""
    match request:
        case Velocity(x):
            return Spending(nfe=len(x), network_rows=len(x) * model.rows_per_nfe)
        case Grad(x):
            n = len(x)
            return Spending(n, n * model.rows_per_nfe, n, n, n)
        case Reward(x0):
            return Spending(reward_calls=len(x0), decodes=len(x0))
        case Decode(x0):
            return Spending(decodes=len(x0))
    return Spending()


@dataclass(frozen=True)
class Answers:
    """Calls of models and rewards; the requests of one call share a model and, if they need one, a reward.

    Args:
        max_rows: The most rows in one call.
        max_grad_rows: The same where a graph is kept for the backward pass, which is what bounds its memory.
        padded: Whether a call of fewer rows is filled up, so that all calls are of one shape.
    """

    max_rows: int
    max_grad_rows: int
    padded: bool = False

    def most(self, kind: type[Request]) -> int:
        """The most rows in one call that answers requests of a kind."""
        return self.max_grad_rows if kind is Grad else self.max_rows

    def computed(self, kind: type[Request], rows: int) -> int:
        """Rows that answering so many takes, those that fill calls up included."""
        return -(-rows // self.most(kind)) * self.most(kind) if self.padded else rows

    def of(self, kind: type[Request], group: Sequence[Asked]) -> list[Any]:
        """The answer to each request of one kind; to a ``Reward``, what the reward's parts say (``rewards``)."""
        if kind is Grad:
            return self._slopes(group)
        with torch.no_grad():
            if kind is Velocity:
                return self._velocities(group)
            if kind is Reward:
                return self.rewards(group)
            if kind is Decode:
                model = group[0].task.model
                return self._alone([asked.request.x0 for asked in group], lambda rows, x0: model.decode(x0))
        return [None] * len(group)

    def rewards(self, group: Sequence[Asked]) -> list[Tensor]:
        """What the k parts of the reward say of clean samples, (B, k) for each request."""
        task, prompts = group[0].task, _prompts(group)
        return self._alone(
            [asked.request.x0 for asked in group],
            lambda rows, x0: _parts(task.reward, task.model.decode(x0), _at(prompts, rows)),
        )

    def rewards_later(self, group: Sequence[Asked]) -> Callable[[], list[Tensor]]:
        """The same, with the model's work done now; what is returned does the reward's, in any thread."""
        task, prompts = group[0].task, _prompts(group)
        with torch.no_grad():
            samples = self._alone([asked.request.x0 for asked in group], lambda rows, x0: task.model.decode(x0))
        unpadded = replace(self, padded=False)  # whoever is elsewhere makes batches of its own
        return lambda: unpadded._alone(samples, lambda rows, some: _parts(task.reward, some, _at(prompts, rows)))

    def _velocities(self, group: Sequence[Asked]) -> list[Tensor]:
        model, t = group[0].task.model, torch.cat([asked.request.t for asked in group])
        conditions = [asked.condition for asked in group for _ in asked.request.x]
        return self._alone(
            [asked.request.x for asked in group], lambda rows, x: model.velocity(x, t[rows], _at(conditions, rows))
        )

    def _slopes(self, group: Sequence[Asked]) -> list[Slope]:
        task, t = group[0].task, torch.cat([asked.request.t for asked in group])
        prompts = [asked.task.prompt for asked in group for _ in asked.request.x]
        conditions = [asked.condition for asked in group for _ in asked.request.x]

        def slope(rows: Rows, x: Tensor) -> Slope:
            # Two leaves, since past a network that is cut off a gradient still finds the short cut of x0 = x - t v.
            through, past = (x.detach().requires_grad_() for _ in range(2))
            with torch.enable_grad():
                v = task.model.velocity(through, t[rows], _at(conditions, rows))
                clean = denoised_from_velocity(task.model.interpolant, v, past, t[rows])
                rewards = _rewards(task.reward, task.model.decode(clean), _at(prompts, rows))
                inner, outer = _gradients(rewards, through, past)
            if inner is None or outer is None:
                raise _cut_off(task, behind_velocity=outer is None)
            return Slope(v.detach(), clean.detach(), rewards.detach(), inner + outer)

        return [Slope(*parts) for parts in self._split([asked.request.x for asked in group], slope, self.max_grad_rows)]

    def _alone(self, tensors: list[Tensor], call: Callable[[Rows, Tensor], Tensor]) -> list[Tensor]:
        return [answer for (answer,) in self._split(tensors, lambda rows, x: (call(rows, x),), self.max_rows)]

    def _split(
        self, tensors: list[Tensor], call: Callable[[Rows, Tensor], tuple[Tensor, ...]], most: int
    ) -> list[tuple[Tensor, ...]]:
        """Rows of many tensors through ``call``, which gets where they are and themselves, at most ``most`` at once.

        Where calls are padded all but the last are full, and the last is filled up with its own last row.
        """
        rows = torch.cat(tensors)
        calls = -(-len(rows) // most)
        bounds = [min(len(rows), most * i) if self.padded else len(rows) * i // calls for i in range(calls + 1)]
        made = []
        for a, b in pairwise(bounds):
            room = most - (b - a) if self.padded else 0
            some: Rows = slice(None) if calls == 1 and not room else [*range(a, b), *[b - 1] * room]
            made.append(tuple(part[: b - a] for part in call(some, rows[some])))
        sizes = [len(tensor) for tensor in tensors]
        return list(zip(*(torch.split(torch.cat(part), sizes) for part in zip(*made, strict=True)), strict=True))


def _prompts(group: Sequence[Asked]) -> list[str]:
    return [asked.task.prompt for asked in group for _ in asked.request.x0]


def _at(values: list[Any], rows: Rows) -> list[Any]:
    return values[rows] if isinstance(rows, slice) else [values[row] for row in rows]


def _parts(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    """(B, k) what the parts of a reward say."""
    return torch.stack([scored(part, samples, prompts) for part in reward.parts], 1)


def _gradients(rewards: Tensor, *leaves: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the sum of rewards; None where no path leads to a leaf."""
    if not rewards.requires_grad:
        return (None,) * len(leaves)
    return torch.autograd.grad(rewards.sum(), leaves, allow_unused=True)


def _cut_off(task: Task, *, behind_velocity: bool) -> BadReward:
    behind = f"decode of model '{task.model.name}' and the reward's score"
    at = behind if behind_velocity else f"velocity of model '{task.model.name}'"
    return BadReward(
        f"no gradient of reward '{task.reward.name}' reaches the state; {at} must not detach or run under torch.no_grad"
    )


def not_finite(task: Task, rewards: Tensor, gradients: Tensor | None) -> BadReward | None:
    """The error of the first row whose reward, or its gradient where there is one, is not finite."""
    for row, reward in enumerate(rewards.tolist()):
        gave = None if math.isfinite(reward) else str(reward)
        if gave is None and gradients is not None and not gradients[row].isfinite().all():
            gave = "a gradient that is not finite"
        if gave is not None:
            return BadReward(
                f"reward '{task.reward.name}' gave {gave} for row {row} of {len(rewards)} of the prompt "
                f"'{task.prompt}'; rewards must be finite, and so must their gradients where guidance follows them"
            )
    return None


class Judged(NamedTuple):
    """What rewards say of one sample that nothing is decided by, by name; NaN where one could not be had, and why."""

    scores: dict[str, float]
    missing: dict[str, str]


def judged_by(rewards: Sequence[RewardModel], sample: Tensor, prompt: str) -> Judged:
    """What each says of a sample (1, ...), whatever happens to it."""
    told = Judged({}, {})
    for reward in rewards:
        try:
            told.scores[reward.name] = float(scored(reward, sample, [prompt]))
        except Exception as error:
            told.scores[reward.name] = math.nan
            told.missing[reward.name] = f"{type(error).__name__}: {error}"
    return told


def scored(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    """Rewards (B,) in float64 on the CPU, in batches of the reward's own size.

    Raises:
        BadReward: If the reward does not give one number a sample.
    """
    with torch.no_grad():
        return _rewards(reward, samples, prompts)


def _rewards(reward: RewardModel, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    answers = []
    for start in range(0, len(samples), reward.batch_size):
        part = samples[start : start + reward.batch_size]
        answer = torch.as_tensor(reward.score(part, prompts[start : start + reward.batch_size]))
        if answer.shape != (len(part),):
            raise BadReward(
                f"reward '{reward.name}' gave shape {tuple(answer.shape)} for {len(part)} samples; "
                f"expected ({len(part)},)"
            )
        answers.append(answer.double().cpu())
    return torch.cat(answers)
