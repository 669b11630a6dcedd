"""SVDD against a plain loop, and how it divides a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama, Heun, Kernel
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.engine import Engine, Job, Observer, Spending, Task
from rollflow.errors import RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Reward
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, Progress


class Bound(ToyModel):
    """To bind a sampler to, which needs no mixtures."""

    interpolant = Linear()


class Watch(Observer):
    """Keeps the rewards of every scored request, and the NFE of every step."""

    def __init__(self) -> None:
        self.rewards: list[Tensor] = []
        self.nfe: list[int] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.rewards.append(rewards)

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.nfe.append(progress.nfe_spent)


class Child(NamedTuple):
    reward: float
    x: Tensor
    v: Tensor
    x0: Tensor


Choice = Callable[[list[Child], int, int], Child]
"""Of one stream's children, given step and stream."""


def best(children: list[Child], step: int, stream: int) -> Child:
    return max(children, key=lambda child: child.reward)


def plain(
    model: ToyModel,
    prompt: str,
    reward: ToyReward,
    streams: int,
    m: list[int],
    choose: Choice = best,
    noises: bool = True,
) -> Tensor:
    """Every step M children of each stream, one of which goes on; the best stream at the end."""
    steps = len(m)
    noise, times = Noise(4, 0, model.shape, model.dtype), torch.arange(steps, 0, -1, dtype=torch.float64) / steps

    def evaluate(x: Tensor, t: Tensor) -> Child:
        v = model.velocity(x, t[None], [prompt])
        x0 = denoised_from_velocity(Linear(), v, x, t)
        return Child(float(reward.score(x0, [prompt])), x, v, x0)

    ends = []
    for stream in range(streams):
        at = choose([evaluate(noise.normal(0, stream, j * noises)[None], times[0]) for j in range(m[0])], 0, stream)
        for step in range(1, steps):
            mean, std = EulerMaruyama().moments(Linear(), at.x, at.v, times[step - 1], times[step])
            children = [evaluate(mean + std * noise.normal(step, stream, j), times[step]) for j in range(m[step])]
            at = choose(children, step, stream)
        ends.append(at)
    return best(ends, 0, 0).x0[0]


@pytest.mark.parametrize(("streams", "m", "steps"), [(1, 4, 5), (2, 3, 4), (3, 1, 3), (2, 5, 1)])
def test_the_plain_loop_gives_the_same_bits(plane: ToyModel, streams: int, m: int, steps: int) -> None:
    reward = ToyReward(torch.tensor([2.0, -1.0]))
    job = Job(Task(plane, "pair", reward), SVDD(streams), streams * m * steps, 4, Sampler(Linear(), steps=steps))
    (result,) = Engine().run([job])
    assert torch.equal(result.sample, plain(plane, "pair", reward, streams, [m] * steps))
    assert result.spent.nfe == result.spent.reward_calls == streams * m * steps


def test_from_one_noise_the_plain_loop_gives_the_same_bits(plane: ToyModel) -> None:
    """It is evaluated as often as there are children, at the same price."""
    reward, watch, search = ToyReward(torch.tensor([2.0, -1.0])), Watch(), SVDD(2, noises=False)
    job = Job(Task(plane, "pair", reward), search, 24, 4, Sampler(Linear(), steps=4))
    (result,) = Engine(observers=[watch]).run([job])
    assert torch.equal(result.sample, plain(plane, "pair", reward, 2, [3] * 4, noises=False))
    assert result.spent.nfe == result.spent.reward_calls == 24
    assert watch.nfe == [6] * 4


@pytest.mark.parametrize(("noises", "rewards"), [(True, 40), (False, 2)])
def test_first_states_are_noises_or_one_noise(plane: ToyModel, noises: bool, rewards: int) -> None:
    """Along VP, whose first estimates differ; where they do not, the first of equal noises goes on in either case."""
    watch, task = Watch(), Task(plane, "pair", ToyReward(torch.tensor([2.0, -1.0])))
    sampler = Sampler(VP(), steps=4, finish=False)
    Engine(observers=[watch]).run([Job(task, SVDD(2, noises=noises), 160, 4, sampler)])
    assert len(watch.rewards[0]) == 40
    assert len(watch.rewards[0].unique()) == rewards  # type: ignore[no-untyped-call]


def test_from_one_noise_the_ode_chooses_nothing(plane: ToyModel) -> None:
    """The control of arXiv 2503.19385: one trajectory of each stream, whatever the budget."""
    task = Task(plane, "pair", ToyReward(torch.tensor([2.0, -1.0])))
    sampler = Sampler(VP(), Euler(), steps=4, finish=False)
    searches = [(SVDD(2, noises=False), 8), (SVDD(2, noises=False), 160), (SVDD(2), 8), (SVDD(2), 160)]
    one, many, first, best_of_20 = Engine().run([Job(task, search, nfe, 3, sampler) for search, nfe in searches])
    assert torch.allclose(one.sample, many.sample)
    assert torch.equal(one.sample, first.sample)
    assert not torch.allclose(best_of_20.sample, many.sample)


@pytest.mark.parametrize("nfe", [8, 24, 25, 31, 63, 100])
@pytest.mark.parametrize("streams", [1, 2])
def test_the_children_of_all_steps_use_up_the_budget(
    line: ToyModel, toy_reward: ToyReward, streams: int, nfe: int
) -> None:
    """Each stream has the same whole number of children; the later steps get the larger; less than a child is left."""
    watch, sampler = Watch(), Sampler(Linear(), steps=4)
    job = Job(Task(line, "wide", toy_reward), SVDD(streams), nfe, sampler=sampler)
    (result,) = Engine(observers=[watch]).run([job])
    assert sum(watch.nfe) == result.spent.nfe
    assert nfe - streams < result.spent.nfe <= nfe
    assert all(step % streams == 0 for step in watch.nfe)
    assert watch.nfe == sorted(watch.nfe)
    assert watch.nfe[-1] - watch.nfe[0] <= streams


@pytest.mark.parametrize(("kernel", "apart"), [(Euler(), False), (EulerMaruyama(), True)], ids=str)
def test_children_differ_only_by_their_noise(
    line: ToyModel, toy_reward: ToyReward, kernel: Euler | EulerMaruyama, apart: bool
) -> None:
    """The control: with an ODE all children of one parent are one, so that there is nothing to choose from."""
    watch = Watch()
    job = Job(Task(line, "wide", toy_reward), SVDD(2), 40, sampler=Sampler(Linear(), kernel, steps=4))
    Engine(observers=[watch]).run([job])
    for rewards in watch.rewards[1:]:
        streams = rewards.view(2, 5)
        assert len(streams.unique()) == (10 if apart else 2)  # type: ignore[no-untyped-call]


def soften(streams: int, temperature: float) -> Choice:
    """Child i with probability softmax(r / a): the first whose cumulated probability exceeds the stream's draw."""

    def choose(children: list[Child], step: int, stream: int) -> Child:
        weights = [math.exp(child.reward / temperature) for child in children]
        u = float(Noise(4, 0, (1,), torch.float64).uniform(step, streams)[stream])
        reached = [total / sum(weights) for total in accumulate(weights)]
        return next(child for child, total in zip(children, reached, strict=True) if total > u)

    return choose


@pytest.mark.parametrize(("streams", "m", "temperature"), [(1, 6, 0.5), (3, 4, 2.0), (2, 5, 0.05)])
def test_a_soft_choice_gives_the_same_bits(plane: ToyModel, streams: int, m: int, temperature: float) -> None:
    reward, search = ToyReward(torch.tensor([1.0, 0.5])), SVDD(streams, temperature)
    job = Job(Task(plane, "pair", reward), search, streams * m * 4, 4, Sampler(Linear(), steps=4))
    (result,) = Engine().run([job])
    expected = plain(plane, "pair", reward, streams, [m] * 4, soften(streams, temperature))
    assert torch.equal(result.sample, expected)
    assert not torch.equal(expected, plain(plane, "pair", reward, streams, [m] * 4))


def test_the_limit_of_zero_temperature(plane: ToyModel) -> None:
    task, sampler = Task(plane, "pair", ToyReward(torch.tensor([1.0, 0.5]))), Sampler(Linear(), steps=5)
    cold, none = Engine().run([Job(task, SVDD(2, a), 50, 1, sampler) for a in (1e-12, 0.0)])
    assert torch.equal(cold.sample, none.sample)


def test_falling_children_give_the_same_bits(plane: ToyModel) -> None:
    """40 draws a stream in proportion 4 to 3 to 2 to 1, from the noises on."""
    reward, watch = ToyReward(torch.tensor([2.0, -1.0])), Watch()
    job = Job(Task(plane, "pair", reward), SVDD(2, ratio=0.25), 80, 4, Sampler(Linear(), steps=4))
    (result,) = Engine(observers=[watch]).run([job])
    assert watch.nfe == [32, 24, 16, 8]
    assert torch.equal(result.sample, plain(plane, "pair", reward, 2, [16, 12, 8, 4]))


@given(
    st.integers(1, 3),
    st.floats(0.01, 1),
    st.integers(1, 7),
    st.integers(0, 150),
    st.sampled_from([EulerMaruyama(), Heun()]),
    st.integers(1, 3),
)
def test_budgets(streams: int, ratio: float, steps: int, spare: int, kernel: Kernel, look: int) -> None:
    """Less than a child a stream is left, and what is declared needs no more than itself."""
    search, dynamics = (
        SVDD(streams, ratio=ratio),
        Sampler(Linear(), kernel, None, steps, ODELookahead(look)).bind(Bound),
    )
    nfe = search.smallest_nfe(dynamics) + spare
    cost = search.cost(dynamics, nfe)
    assert 0 <= nfe - cost.nfe < streams * dynamics.child_nfe
    assert search.cost(dynamics, cost.nfe) == cost


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "streams of svdd must be a whole number >= 1, not 0"),
        ((2, -1.0), "temperature of svdd must be a finite number >= 0, not -1.0"),
        ((2, math.nan), "temperature of svdd must be a finite number, not nan"),
        ((2, 0.0, 0.0), "ratio of svdd must be a finite number > 0 and <= 1, not 0.0"),
        ((2, 0.0, 1.1), "ratio of svdd must be a finite number > 0 and <= 1, not 1.1"),
    ],
)
def test_settings_out_of_range(settings: tuple[int, float, float], message: str) -> None:
    with pytest.raises(RollflowError, match=message):
        SVDD(*settings)
