"""Gradients of the reward of clean estimates, through decoder and network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.shapes import States
from rollflow.engine.execution.batching import Rows, at_rows
from rollflow.engine.execution.faults import GRADIENT, Fault, finite_rows, score_not_finite, sound_rows
from rollflow.engine.execution.model_calls import examined, velocity
from rollflow.engine.task import Task
from rollflow.errors import BadReward
from rollflow.rewards.scoring import MemoryLimit, rewards_of


@dataclass(frozen=True)
class GradientCall:
    """A differentiated call on a selection of B rows.

    Args:
        task: Model and reward.
        t: (B,) times.
        prompts: Prompt of each row.
        conditions: Encoded prompt of each row.
        padded: Whether the reward is given one sample per row even if some rows have faults.
        memory_limit: Limit on the samples that fit into memory in one call of the reward.
    """

    task: Task
    t: Float[Tensor, " B"]
    prompts: Sequence[str]
    conditions: Sequence[Any]
    padded: bool
    memory_limit: MemoryLimit

    def __call__(
        self, rows: Rows, x: States
    ) -> tuple[States, States, Float64[Tensor, " B"], States, list[Fault | None]]:
        """Compute the fields of a ``Slope`` at states (n, ...) of these rows, and the fault of each.

        Raises:
            BadReward: If no gradient reaches the state.
        """
        task, t = self.task, self.t[rows]
        # Two leaves, since past a network that is cut off a gradient still finds the short cut of x0 = x - t v.
        through, past = (x.detach().requires_grad_() for _ in range(2))
        with torch.enable_grad():
            v = velocity(task, through, t, at_rows(self.conditions, rows))
            clean = denoised_from_velocity(task.model.interpolant, v, past, t)
            samples, faults = examined(task, clean.clone())  # decode may write to it
            reward, gradient = torch.full((len(x),), -torch.inf, dtype=torch.float64), torch.zeros_like(x)
            sound = sound_rows(faults)
            if sound:
                scores = self._score(samples, faults, sound, at_rows(self.prompts, rows))
                inner, outer = _gradients(scores, through, past)
                reward[sound] = scores.detach()
                if inner is not None and outer is not None:
                    gradient = inner + outer
                elif scores.isfinite().any():
                    raise _cut_off(task, behind_velocity=outer is None)
        faults = _with_gradient_faults(task, reward, gradient, faults)
        faulty = torch.tensor([fault is not None for fault in faults])
        reward[[fault is not None and fault.where != GRADIENT for fault in faults]] = -torch.inf
        gradient[faulty.to(gradient.device)] = 0.0
        return v.detach().clone(), clean.detach(), reward, gradient, faults

    def _score(
        self, samples: Float[Tensor, " B *sample"], faults: list[Fault | None], sound: list[int], prompts: list[str]
    ) -> Float64[Tensor, " sound"]:
        """Score the sound rows; in padded calls, a sound sample stands in for each that is not."""
        rows = [row if fault is None else sound[0] for row, fault in enumerate(faults)] if self.padded else sound
        given = samples if len(sound) == len(faults) else samples[rows]
        scores = rewards_of(self.task.objective, given, at_rows(prompts, rows), self.memory_limit)
        return scores[sound] if self.padded else scores


def _gradients(rewards: Float64[Tensor, " sound"], *leaves: Tensor) -> tuple[Tensor | None, ...]:
    """Compute gradients of the sum of rewards; None for a leaf that the rewards do not depend on."""
    if not rewards.requires_grad:
        return (None,) * len(leaves)
    return torch.autograd.grad(rewards.sum(), leaves, allow_unused=True)


def _with_gradient_faults(
    task: Task, reward: Float64[Tensor, " B"], gradient: States, faults: list[Fault | None]
) -> list[Fault | None]:
    """Return the faults of all rows, including those whose reward or gradient is not finite."""
    all_faults = list[Fault | None]()
    for fault, score, has_gradient in zip(faults, reward.tolist(), finite_rows(gradient), strict=True):
        if fault is None and not -torch.inf < score < torch.inf:
            all_faults.append(score_not_finite(task.objective, score))
        elif fault is None and not has_gradient:
            all_faults.append(Fault(GRADIENT, f"reward '{task.objective.name}' gave a gradient that is not finite"))
        else:
            all_faults.append(fault)
    return all_faults


def _cut_off(task: Task, *, behind_velocity: bool) -> BadReward:
    behind = f"decode of model '{task.model.name}' and the reward's score"
    where = behind if behind_velocity else f"velocity of model '{task.model.name}'"
    return BadReward(
        f"no gradient of reward '{task.objective.name}' reaches the state; {where} must not detach or run under "
        "torch.no_grad"
    )
