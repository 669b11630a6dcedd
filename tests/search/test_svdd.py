"""SVDD against a plain loop, and how it divides a budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow.conversions import denoised_from_velocity
from rollflow.engine import Engine, Job, Observer, Spending, Task
from rollflow.errors import RollflowError
from rollflow.interpolants import Linear
from rollflow.kernels import Euler, EulerMaruyama
from rollflow.models.toy import ToyModel, ToyReward
from rollflow.requests import Reward
from rollflow.rng import Noise
from rollflow.sampler import Sampler
from rollflow.search import SVDD, Progress


class Watch(Observer):
    """Keeps the rewards of every scored request, and the NFE of every step."""

    def __init__(self) -> None:
        self.rewards: list[Tensor] = []
        self.nfe: list[int] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.rewards.append(rewards)

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.nfe.append(progress.nfe_spent)


def plain(model: ToyModel, prompt: str, reward: ToyReward, streams: int, m: int, steps: int) -> Tensor:
    """Every step M children of each stream, the best of which goes on; the best stream at the end."""
    noise, times = Noise(4, 0, model.shape, model.dtype), torch.arange(steps, 0, -1, dtype=torch.float64) / steps

    def evaluate(x: Tensor, t: Tensor) -> tuple[float, Tensor, Tensor, Tensor]:
        v = model.velocity(x, t[None], [prompt])
        x0 = denoised_from_velocity(Linear(), v, x, t)
        return float(reward.score(x0, [prompt])), x, v, x0

    ends = []
    for stream in range(streams):
        _, x, v, x0 = max((evaluate(noise.normal(0, stream, j)[None], times[0]) for j in range(m)), key=lambda c: c[0])
        for step in range(1, steps):
            mean, std = EulerMaruyama().moments(Linear(), x, v, times[step - 1], times[step])
            children = [evaluate(mean + std * noise.normal(step, stream, j), times[step]) for j in range(m)]
            _, x, v, x0 = max(children, key=lambda c: c[0])
        ends.append(x0)
    return max(ends, key=lambda x0: float(reward.score(x0, [prompt])))[0]


@pytest.mark.parametrize(("streams", "m", "steps"), [(1, 4, 5), (2, 3, 4), (3, 1, 3), (2, 5, 1)])
def test_the_plain_loop_gives_the_same_bits(plane: ToyModel, streams: int, m: int, steps: int) -> None:
    reward = ToyReward(torch.tensor([2.0, -1.0]))
    job = Job(Task(plane, "pair", reward), SVDD(streams), streams * m * steps, 4, Sampler(Linear(), steps=steps))
    (result,) = Engine().run([job])
    assert torch.equal(result.sample, plain(plane, "pair", reward, streams, m, steps))
    assert result.spent.nfe == result.spent.reward_calls == streams * m * steps


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
        assert len(streams.unique()) == (10 if apart else 2)


def test_no_streams_is_an_error() -> None:
    with pytest.raises(RollflowError, match="at least 1 stream, not 0"):
        SVDD(0)
