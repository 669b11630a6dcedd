"""Epsilon-greedy noise search against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from support.loops import NOTHING, stepper
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import EulerMaruyama
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, EpsilonGreedy

REWARD = ToyReward(torch.tensor([1.0, 1.5]))


def plain(model: ToyModel, steps: int, rounds: list[int], search: EpsilonGreedy) -> Tensor:
    """At every step rounds of candidates around the best of the round before, or anywhere."""
    noise, step = Noise(3, 0, model.shape, model.dtype), stepper(model, "pair", REWARD, EulerMaruyama(), steps)
    state = NOTHING
    for k in range(steps):
        pivot, uniform, i = noise.normal(k, 0, 0)[None], noise.uniform(k, 2 * sum(rounds)).tolist(), 0
        for number, n in enumerate(rounds, 1):
            tried = []
            for j in range(n):
                z, explore, reach = noise.normal(k, number, j)[None], uniform[i], uniform[sum(rounds) + i]
                if explore >= search.epsilon:
                    z = pivot + reach * search.radius * math.sqrt(z.numel()) * z / z.norm()
                tried.append((z, step(state, k, z)))
                i += 1
            pivot, chosen = max(tried, key=lambda pair: pair[1].reward)
        state = chosen
    return state.x0[0]


@pytest.mark.parametrize(
    ("search", "children", "rounds"),
    [
        (EpsilonGreedy(), 3, [3]),
        (EpsilonGreedy(), 4, [4]),
        (EpsilonGreedy(), 9, [4, 5]),
        (EpsilonGreedy(2, 0.0, 0.6), 7, [2, 2, 3]),
        (EpsilonGreedy(2, 1.0), 4, [2, 2]),
        (EpsilonGreedy(1, 0.5), 3, [1, 1, 1]),
    ],
    ids=str,
)
def test_the_plain_loop_gives_the_same_sample(
    plane: ToyModel, search: EpsilonGreedy, children: int, rounds: list[int]
) -> None:
    job = Job(Task(plane, "pair", REWARD), search, 4 * children, 3, Sampler(Linear(), steps=4))
    (result,) = Engine().run([job])
    torch.testing.assert_close(result.sample, plain(plane, 4, rounds, search), rtol=1e-6, atol=1e-6)
    assert result.spent.nfe == result.spent.reward_calls == 4 * children


def test_it_costs_what_svdd_with_one_stream_costs(plane: ToyModel) -> None:
    dynamics = Sampler(Linear(), steps=4).bind(plane)
    for nfe in (4, 17, 60):
        assert EpsilonGreedy().cost(dynamics, nfe) == SVDD(1).cost(dynamics, nfe)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "candidates of epsilon-greedy must be a whole number >= 1, not 0"),
        ((1, 1.5), "epsilon of epsilon-greedy must be a finite number >= 0 and <= 1, not 1.5"),
        ((1, 0.5, 0.0), "radius of epsilon-greedy must be a finite number > 0, not 0.0"),
    ],
)
def test_settings_out_of_range(settings: tuple[int, float, float], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        EpsilonGreedy(*settings)
