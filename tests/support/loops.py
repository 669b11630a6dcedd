"""What the plain loops that searches are compared with have in common: states on a uniform linear grid, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import GaussianKernel
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward


class State(NamedTuple):
    """A state (1, d), the velocity there, the clean estimate and its reward."""

    x: Tensor
    v: Tensor
    x0: Tensor
    reward: float


Step = Callable[[State, int, Tensor], State]
"""From a state at the time before to time number ``step``, with a noise (1, d); at time 0 the noise is the state."""


def times(steps: int) -> Tensor:
    return torch.arange(steps, 0, -1, dtype=torch.float64) / steps


def stepper(model: ToyModel, prompt: str, reward: ToyReward, kernel: GaussianKernel, steps: int) -> Step:
    """Return the step of a sampler ``Sampler(Linear(), kernel, steps=steps)``."""
    at = times(steps)

    def step(parent: State, k: int, noise: Tensor) -> State:
        x = noise
        if k > 0:
            mean, std = kernel.moments(Linear(), parent.x, parent.v, at[k - 1], at[k])
            x = mean + std * noise if kernel.stochastic else mean
        v = model.velocity(x, at[k][None], [prompt])
        x0 = denoised_from_velocity(Linear(), v, x, at[k])
        return State(x, v, x0, float(reward.score(x0, [prompt])))

    return step


def best(states: list[State]) -> State:
    """The state with the highest reward, the first of equals."""
    return max(states, key=lambda state: state.reward)


NOTHING = State(torch.empty(0), torch.empty(0), torch.empty(0), 0.0)
"""The parent of a first state."""
