"""Zero-order search against a plain loop, and what climbing gains."""

from __future__ import annotations

import pytest
import torch
from support.loops import NOTHING, State, stepper
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama, GaussianKernel
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, ZeroOrder
from rollflow.search.neighbours import on_sphere

REWARD = ToyReward(torch.tensor([1.0, 1.5]))


def plain(model: ToyModel, kernel: GaussianKernel, steps: int, rounds: list[int], cosine: float) -> Tensor:
    """The first noise and its neighbours, then neighbours of the best noise so far; ``rounds`` are their numbers."""
    noise, step = Noise(7, 0, model.shape, model.dtype), stepper(model, "corners", REWARD, kernel, steps)

    def trajectory(first: Tensor, number: int) -> State:
        state = step(NOTHING, 0, first)
        for k in range(1, steps):
            state = step(state, k, noise.normal(k, number, 0)[None])
        return state

    number, pivot = 1, noise.normal(0, 0, 0)[None]
    end = trajectory(pivot, 0)
    for n in rounds:
        tried = {}
        for i in range(number, number + n):
            y = on_sphere(pivot, noise.normal(0, i, 0)[None], cosine)
            tried[i] = (y, trajectory(y, i))
        number += n
        y, state = max(tried.values(), key=lambda pair: pair[1].reward)
        if state.reward > end.reward:
            pivot, end = y, state
    return end.x0[0]


@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama()], ids=str)
@pytest.mark.parametrize(
    ("trajectories", "rounds"), [(1, []), (3, [2]), (4, [3]), (5, [3, 1]), (12, [3, 3, 3, 2])], ids=str
)
def test_the_plain_loop_gives_the_same_bits(
    plane: ToyModel, kernel: GaussianKernel, trajectories: int, rounds: list[int]
) -> None:
    search, sampler = ZeroOrder(3, 0.8), Sampler(Linear(), kernel, steps=4)
    (result,) = Engine().run([Job(Task(plane, "corners", REWARD), search, 4 * trajectories + 3, 7, sampler)])
    assert torch.equal(result.sample, plain(plane, kernel, 4, rounds, 0.8))
    assert result.spent.nfe == 4 * trajectories
    assert result.spent.reward_calls == trajectories


def test_it_climbs_where_the_reward_is_smooth() -> None:
    """A linear reward of 64 coordinates: 60 trajectories climb half as high again as the best of 60."""
    model = ToyModel({"flat": GaussianMixture(torch.tensor([1.0]), torch.zeros(1, 64), torch.tensor([1.0]))})
    task, sampler = Task(model, "flat", ToyReward()), Sampler(Linear(), Euler(), steps=2)
    of = {
        search.name: [
            result.reward for result in Engine().run([Job(task, search, 120, seed, sampler) for seed in range(8)])
        ]
        for search in (ZeroOrder(), BestOfN())
    }
    assert sum(of["zero-order"]) > 1.4 * sum(of["bon"])


def test_more_budget_is_never_worse(plane: ToyModel) -> None:
    sampler = Sampler(Linear(), Euler(), steps=3)
    jobs = [Job(Task(plane, "corners", REWARD), ZeroOrder(2), 3 * n, 2, sampler) for n in range(1, 12)]
    rewards = [result.reward for result in Engine().run(jobs)]
    assert rewards == sorted(rewards)
    assert rewards[0] < rewards[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "neighbours of zero-order must be a whole number >= 1, not 0"),
        ((1, 1.0), "cosine of zero-order must be a finite number >= 0 and < 1, not 1.0"),
    ],
)
def test_settings_out_of_range(settings: tuple[int, float], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        ZeroOrder(*settings)
