"""CoDe against a plain loop, its limits, and how it divides a budget."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.guidance import DPS, Guidance
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama, Heun, Kernel
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.engine import Engine, Job, Observer, Result, Spending, Task, estimate_cost
from rollflow.errors import RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Reward
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import CoDe, Progress

POINT = ToyReward(torch.tensor([2.0, -1.0]))


class Watch(Observer):
    """Keeps what is saved, and the noise levels and rewards of all that is scored."""

    def __init__(self) -> None:
        self.saves: list[Progress] = []
        self.levels: list[float] = []
        self.rewards: list[Tensor] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.levels.append(request.noise_level)
        self.rewards.append(rewards)

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.saves.append(progress)


def run(model: ToyModel, search: CoDe, nfe: int, sampler: Sampler, seed: int = 4) -> tuple[Result, Watch]:
    watch = Watch()
    (result,) = Engine(observers=[watch]).run([Job(Task(model, "pair", POINT), search, nfe, seed, sampler)])
    return result, watch


class State(NamedTuple):
    x: Tensor
    v: Tensor
    x0: Tensor
    reward: float


def plain(model: ToyModel, streams: int, block: int, copies: list[int], steps: int, noises: bool = True) -> Tensor:
    """Copies of one stream one after another, each through the whole block; the best stream at the end."""
    noise, times = Noise(4, 0, model.shape, model.dtype), torch.arange(steps, 0, -1, dtype=torch.float64) / steps

    def evaluate(x: Tensor, t: Tensor) -> State:
        v = model.velocity(x, t[None], ["pair"])
        x0 = denoised_from_velocity(Linear(), v, x, t)
        return State(x, v, x0, float(POINT.score(x0, ["pair"])))

    ends = []
    for i in range(streams):
        kept, step = None, 0
        for m in copies:
            end = min(step + block, steps - 1)
            reached = []
            for j in range(m):
                at = evaluate(noise.normal(0, i, j * noises)[None], times[0]) if kept is None else kept
                for k in range(step + 1, end + 1):
                    mean, std = EulerMaruyama().moments(Linear(), at.x, at.v, times[k - 1], times[k])
                    at = evaluate(mean + std * noise.normal(k, i, j), times[k])
                reached.append(at)
            kept, step = max(reached, key=lambda state: state.reward), end
        assert kept is not None
        ends.append(kept)
    return max(ends, key=lambda state: state.reward).x0[0]


@pytest.mark.parametrize(
    ("streams", "block", "copies", "steps", "nfe", "left"),
    [
        (2, 2, [3, 3, 3, 3, 3], 10, 60, 0),
        (1, 3, [4, 4], 7, 28, 0),
        (3, 1, [2, 2, 2], 4, 24, 0),
        (2, 5, [4], 4, 32, 0),
        (2, 2, [5], 1, 10, 0),
        (2, 2, [2, 3, 3], 7, 37, 1),  # 4 a stream more than 2 copies cost: one more in the last two blocks
        (1, 2, [3, 3, 4], 6, 20, 1),  # 2 more than 3 copies cost: one in the last block, which is short
    ],
)
def test_the_plain_loop_gives_the_same_bits(
    plane: ToyModel, streams: int, block: int, copies: list[int], steps: int, nfe: int, left: int
) -> None:
    result, _ = run(plane, CoDe(streams, block), nfe, Sampler(Linear(), steps=steps))
    assert torch.equal(result.sample, plain(plane, streams, block, copies, steps))
    assert (result.spent.nfe, result.spent.reward_calls) == (nfe - left, streams * sum(copies))


def test_from_one_noise_the_plain_loop_gives_the_same_bits(plane: ToyModel) -> None:
    result, watch = run(plane, CoDe(2, 2, noises=False), 60, Sampler(Linear(), steps=10))
    assert torch.equal(result.sample, plain(plane, 2, 2, [3] * 5, 10, noises=False))
    first = watch.saves[0].particles.x.view(2, 3, -1)
    assert (first == first[:, :1]).all()
    assert (result.spent.nfe, result.spent.reward_calls) == (60, 30)


def test_from_one_noise_the_ode_chooses_nothing(plane: ToyModel) -> None:
    """The control of arXiv 2503.19385: one trajectory of each stream, whatever the budget."""
    sampler, search = Sampler(Linear(), Euler(), steps=5), CoDe(2, 2, noises=False)
    assert torch.equal(run(plane, search, 10, sampler)[0].sample, run(plane, search, 60, sampler)[0].sample)
    assert not torch.equal(run(plane, CoDe(), 10, sampler)[0].sample, run(plane, CoDe(), 60, sampler)[0].sample)


def test_only_the_ends_of_blocks_are_scored(plane: ToyModel) -> None:
    """With 8 times and blocks of 3: those number 3, 6 and 7; nothing else is decoded."""
    result, watch = run(plane, CoDe(2, 3), 64, Sampler(Linear(), steps=8))
    assert watch.levels == pytest.approx([1 - step / 8 for step in (3, 6, 7)])
    assert result.spent.decodes == 3 * 8 + 1
    assert [len(progress.particles.x) for progress in watch.saves] == [8, 8, 8, 2, 8, 8, 2, 2]


def test_one_block_is_best_of_n(plane: ToyModel) -> None:
    """Of as many trajectories as the budget buys, of which only the ends are compared."""
    result, watch = run(plane, CoDe(3, 9), 3 * 5 * 4, Sampler(Linear(), steps=4))
    assert len(watch.rewards) == 1
    assert len(watch.rewards[0]) == 15
    assert result.reward == float(watch.rewards[0].max())


@pytest.mark.parametrize("block", [1, 2, 3])
def test_ancestors_say_whose_child_each_particle_is(plane: ToyModel, block: int) -> None:
    """The noise between a particle and its ancestor's mean is the draw of one of its stream's copies."""
    streams, m, steps = 3, 4, 6
    _, watch = run(plane, CoDe(streams, block), streams * m * steps, Sampler(Linear(), steps=steps))
    noise, times = Noise(4, 0, plane.shape, plane.dtype), torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    for before, after in zip(watch.saves, watch.saves[1:], strict=False):
        assert after.ancestors is not None
        parents, k = before.particles.rows(after.ancestors), after.step
        mean, std = EulerMaruyama().moments(Linear(), parents.x, parents.u, times[k - 1], times[k])
        per_stream = len(after.particles.x) // streams
        for row, z in enumerate((after.particles.x - mean) / std):
            draws = noise.normals(k, [row // per_stream] * m, range(m))
            assert (draws - z).abs().amax(1).min() < 1e-12


def test_the_papers_setting_is_25_copies_in_500(line: ToyModel) -> None:
    """And the default; on its own grid without finishing, as its model is step-distilled."""
    dynamics = Sampler(VP(), steps=10, finish=False).bind(line)
    cost = CoDe().cost(dynamics, 500)
    assert (cost.nfe, cost.reward_calls) == (500, 2 * 25 * 5)


@pytest.mark.parametrize("guidance", [None, DPS(0.1)])
@pytest.mark.parametrize("sampler", [Sampler(Linear(), steps=6), Sampler(VP(), Heun(), steps=4)])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_declared_is_spent(plane: ToyModel, guidance: Guidance | None, sampler: Sampler, block: int) -> None:
    """With guidance every evaluation inside a block is differentiated, and every parent that is copied."""
    sampler = Sampler(sampler.interpolant, sampler.kernel, steps=sampler.steps, guidance=guidance)
    search = CoDe(2, block)
    result, _ = run(plane, search, 150, sampler)
    assert result.spent == estimate_cost(plane, search, sampler, 150)
    assert (result.spent.backward_passes > 0) == (guidance is not None)


class Bound(ToyModel):
    """To bind a sampler to, which needs no mixtures."""

    interpolant = Linear()


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(0, 200),
    st.sampled_from([EulerMaruyama(), Heun()]),
    st.sampled_from([None, DPS()]),
    st.integers(1, 3),
)
def test_budgets(
    streams: int, block: int, steps: int, spare: int, kernel: Kernel, guidance: Guidance | None, look: int
) -> None:
    """Less than a copy a stream of the longest block is left, and what is declared needs no more than itself."""
    sampler = Sampler(VP(), kernel, None, steps, ODELookahead(look), guidance=guidance)
    search, dynamics = CoDe(streams, block), sampler.bind(Bound)
    nfe = search.smallest_nfe(dynamics) + spare
    cost, longest = search.cost(dynamics, nfe), min(block, steps - 1) + 1
    assert 0 <= nfe - cost.nfe < streams * longest * dynamics.child_nfe
    assert search.cost(dynamics, cost.nfe) == cost


@pytest.mark.parametrize(("streams", "block"), [(0, 2), (2, 0)])
def test_settings_out_of_range(streams: int, block: int) -> None:
    with pytest.raises(
        RollflowError, match=f"{'block' if streams else 'streams'} of code must be a whole number >= 1, not 0"
    ):
        CoDe(streams, block)
