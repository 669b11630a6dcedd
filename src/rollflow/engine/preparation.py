"""Loading and trying rewards before a search, so that a mistake costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.engine.execution.executor import Executor, Query
from rollflow.engine.execution.faults import sound_rows
from rollflow.engine.execution.model_calls import examined, velocity
from rollflow.engine.job import Job
from rollflow.engine.task import Task
from rollflow.errors import BadReward, NotDifferentiable, RewardUnavailable
from rollflow.particles.rng import Noise, global_state_kept
from rollflow.requests import Grad
from rollflow.rewards.base import RewardModel
from rollflow.rewards.scoring import load, rewards_of, scored
from rollflow.runtime.callees import called

_STEPS = (0.1, 0.03, 0.01, 0.003)  # of finite differences, in units of the state
_TRIES = 4


class Preparation:
    """Loads rewards, and tries each of them once per model.

    Args:
        executor: Executor that will answer the jobs' requests.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._loaded: set[int] = set()
        self._tried: set[tuple[int, int, bool]] = set()

    def prepare(self, job: Job, condition: Any) -> None:
        """Load and try the rewards of a job, unless this was done before.

        Args:
            job: Job that is about to begin.
            condition: Its encoded prompt.

        Raises:
            BadReward: If its reward cannot be loaded, raises, or does not give one number for each sample.
            NotDifferentiable: If guidance would follow a gradient that is not the reward's.
        """
        task, guided = job.task, job.sampler.guidance is not None and job.dynamics.transitions > 0
        id_of = self.executor.numbering.id_of
        chooser = () if task.choice is None else (task.choice.reward,)
        for reward in (task.objective, task.reward, *chooser, *task.held_out):
            if id_of(reward) not in self._loaded:
                load(reward)
                self._loaded.add(id_of(reward))
        for with_gradient in {False, guided}:
            key = id_of(task.objective), id_of(task.model), with_gradient
            if key not in self._tried:
                with global_state_kept(), suppress(RewardUnavailable):  # which the search itself survives
                    if with_gradient:
                        try_gradient(task, condition, self.executor)
                    else:
                        try_reward(task, self.executor)
                self._tried.add(key)


def may_try(reward: RewardModel) -> bool:
    """Whether a part of a reward may be called outside the budget."""
    return reward.probed and not (reward.interactive or reward.remote)


def noises(task: Task, rows: int) -> Float[Tensor, " rows *state"]:
    """Return states (rows, ...) of pure noise, which are the same in every run."""
    return Noise(0, 0, tuple(task.model.shape), task.model.dtype).normals(0, range(rows), [0] * rows)


def try_reward(task: Task, executor: Executor) -> None:
    """Score one and then two samples that are decoded from noise and eligible.

    Raises:
        BadReward: If a part of the reward refuses samples of this shape, raises, or does not give one number for each.
    """
    parts = [part for part in task.objective.parts if may_try(part)]
    if not parts:
        return
    [(samples, faults)] = executor.examined(task, [noises(task, 2)])
    samples = samples[sound_rows(faults)]
    for part in parts:
        with called(f"reward '{part.name}' failed", BadReward):
            unfit = part.unfit(tuple(samples.shape[1:]))
        if unfit is not None:
            raise BadReward(f"reward '{part.name}' cannot score the samples of model '{task.model.name}': {unfit}")
        for rows in range(1, len(samples) + 1):
            scored(part, samples[:rows], [task.prompt] * rows)


def try_gradient(task: Task, condition: Any, executor: Executor) -> None:
    """Compare the gradient that guidance follows with finite differences of the reward along one direction.

    The states are at signal-to-noise ratio 1. Each is differentiated twice in one call, to find a gradient that is cut
    off for a part of a batch. Several step sizes, which must agree, and several states distinguish kinks and rounding
    from a gradient that is cut off: a gradient is accepted at the first state where it agrees with the differences as
    closely as they do among themselves, and refused after two where it clearly does not.

    Raises:
        BadReward: If no gradient reaches the state at all.
        NotDifferentiable: If the gradient is not that of the reward.
    """
    if not all(may_try(part) for part in task.objective.parts):
        return
    path, model = task.model.interpolant, task.model
    start, t = torch.ones(1, dtype=torch.float64), path.time_at_log_snr(torch.zeros(1, dtype=torch.float64))
    draws, refused = noises(task, 3 * _TRIES).chunk(3), list[tuple[float, float]]()
    for first, second, direction in zip(*(draw[:, None] for draw in draws), strict=True):
        with torch.no_grad():
            clean = denoised_from_velocity(path, velocity(task, first, start, [condition]), first, start)
        x = path.alpha(t).to(clean) * clean + path.sigma(t).to(clean) * second
        twice = Grad(torch.cat([x, x]), t.expand(2), 0.5)
        [(slope, faults)] = executor.answer(Grad, [Query(twice, task, condition)])
        if any(faults) or not x.isfinite().all():
            continue

        def reward_at(x: Tensor) -> float:
            with torch.enable_grad():  # rewards may be given other pixels where gradients are not enabled
                leaf = x.detach().requires_grad_()
                v = velocity(task, leaf, t, [condition])
                samples, [fault] = examined(task, denoised_from_velocity(path, v, leaf, t))
                if fault is not None:
                    return torch.nan
                limit = executor.memory_limit(task.objective)
                return float(rewards_of(task.objective, samples, [task.prompt], limit).detach())

        differences = difference(reward_at, x, direction)
        if differences is None:
            continue
        measured, spread = differences
        along = (slope.gradient.double() * direction.double()).flatten(1).sum(1).tolist()
        gradient = max(along, key=lambda one: abs(one - measured))
        if abs(gradient - measured) <= min(0.25, 0.02 + 3 * spread) * max(abs(gradient), abs(measured)):
            return
        refused.append((gradient, measured))
        if len(refused) == 2:
            gradient, measured = refused[0]
            raise NotDifferentiable(
                f"guidance cannot follow reward '{task.objective.name}': along one direction its gradient is "
                f"{gradient:.3g}, but the reward changes by {measured:.3g}; a part of the score, of decode or of the "
                f"network of model '{model.name}' is cut off, by detach, numpy or torch.no_grad"
            )


def difference(
    value: Callable[[Tensor], float], x: Float[Tensor, "*shape"], direction: Float[Tensor, "*shape"]
) -> tuple[float, float] | None:
    """Measure the derivative of a function along a direction by central differences of several sizes.

    Returns:
        The derivative, and the spread of the differences as a fraction of it; None if they do not agree.
    """
    differences: list[float] = []
    for step in _STEPS:
        ahead, behind = value(x + step * direction), value(x - step * direction)
        rounding = 1e-5 * max(abs(ahead), abs(behind))
        if abs(ahead - behind) > rounding:
            differences.append((ahead - behind) / (2 * step))
    if len(differences) < 3:
        return None
    *_, coarse, middle, fine = differences
    spread, size = max(coarse, middle, fine) - min(coarse, middle, fine), abs(fine)
    return (fine, spread / size) if spread <= 0.1 * size else None
