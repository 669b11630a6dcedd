"""BestOfN against a plain loop."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, GaussianKernel
from rollflow.engine import Engine, Job, Task
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN


def best_of(model: ToyModel, prompt: str, reward: ToyReward, kernel: GaussianKernel, steps: int, n: int) -> Tensor:
    """N trajectories, one after another; the best (the first of equals)."""
    noise, times = Noise(11, 0, model.shape, model.dtype), torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    best, highest = torch.empty(0), -float("inf")
    for i in range(n):
        x = noise.normal(0, i, 0)[None]
        for step, (t, s) in enumerate(pairwise(times), 1):
            v = model.velocity(x, t[None], [prompt])
            mean, std = kernel.moments(Linear(), x, v, t, s)
            x = mean + std * noise.normal(step, i, 0) if kernel.stochastic else mean
        x0 = denoised_from_velocity(Linear(), model.velocity(x, times[-1][None], [prompt]), x, times[-1])
        if float(reward.score(x0, [prompt])) > highest:
            best, highest = x0[0], float(reward.score(x0, [prompt]))
    return best


@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama(), DDIM(0.5)], ids=str)
@pytest.mark.parametrize(("steps", "n", "spare"), [(4, 1, 0), (4, 5, 3), (8, 3, 7), (1, 6, 0)])
def test_the_plain_loop_gives_the_same_bits(
    plane: ToyModel, kernel: GaussianKernel, steps: int, n: int, spare: int
) -> None:
    """N is what the budget buys; what is less than a trajectory is left."""
    reward = ToyReward(torch.tensor([1.0, 1.5]))
    sampler = Sampler(Linear(), kernel, steps=steps)
    job = Job(Task(plane, "corners", reward), BestOfN(), n * steps + spare, seed=11, sampler=sampler)
    (result,) = Engine().run([job])
    assert torch.equal(result.sample, best_of(plane, "corners", reward, kernel, steps, n))
    assert result.spent.nfe == n * steps
    assert result.spent.reward_calls == n


def test_more_budget_is_never_worse(line: ToyModel, toy_reward: ToyReward) -> None:
    """The trajectories of a smaller budget are among those of a larger one with the same seed."""
    sampler = Sampler(Linear(), steps=4)
    jobs = [Job(Task(line, "wide", toy_reward), BestOfN(), 4 * n, seed=2, sampler=sampler) for n in range(1, 12)]
    rewards = [result.reward for result in Engine().run(jobs)]
    assert rewards == sorted(rewards)
    assert rewards[0] < rewards[-1]


def test_guidance_differentiates_every_evaluation_but_the_last(line: ToyModel, toy_reward: ToyReward) -> None:
    """N (T - 1) backward passes, each with a reward call of its own; the last particles have no children."""
    sampler = Sampler(Linear(), steps=4, guidance=DPS(0.1))
    stages = BestOfN().schedule(sampler.bind(line), 2).stages
    assert [(stage.rows, stage.score, stage.guided) for stage in stages] == [(3, False, True)] * 3 + [(3, True, False)]
    (result,) = Engine().run([Job(Task(line, "wide", toy_reward), BestOfN(), 12, seed=2, sampler=sampler)])
    assert (result.spent.nfe, result.spent.reward_calls, result.spent.backward_passes) == (12, 12, 9)
