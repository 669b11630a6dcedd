"""Beam and recombination in searches, against plain loops."""

from __future__ import annotations

import pytest
import torch
from support.loops import NOTHING, State, best, stepper
from torch import Tensor

from rollflow.bench.probes.composition import compositional_toy
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama
from rollflow.engine import Engine, Job, Task, completed
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler, even_shares
from rollflow.search import SVDD, Beam, Search
from rollflow.search.recombination import LEAST, recombined

REWARD = ToyReward(torch.tensor([1.0, 1.5]))


def sampled(model: ToyModel, search: Search, nfe: int, steps: int) -> Tensor:
    sampler = Sampler(Linear(), EulerMaruyama(), steps=steps)
    [result] = Engine().run([Job(Task(model, "pair", REWARD), search, nfe, 5, sampler)])
    assert result.spent.nfe == nfe
    return result.x0


def of_noises(noises: list[Tensor], states: list[State], families: list[int]) -> Tensor | None:
    rewards = torch.tensor([state.reward for state in states], dtype=torch.float64)
    return recombined(torch.cat(noises), rewards, torch.tensor(families))


def plain_beam(model: ToyModel, rows: list[int], kept: list[int], *, recombine: bool) -> Tensor:
    noise, step = Noise(5, 0, model.shape, model.dtype), stepper(model, "pair", REWARD, EulerMaruyama(), len(rows))
    parents = [NOTHING]
    for k, count in enumerate(rows):
        heir = recombine and k > 0 and count > LEAST
        families = [i for i, size in enumerate(even_shares(count - heir, len(parents))[::-1]) for _ in range(size)]
        noises = [noise.normal(k, i, families[:place].count(i))[None] for place, i in enumerate(families)]
        children = [step(parents[i], k, z) for i, z in zip(families, noises, strict=True)]
        if heir:
            z = of_noises(noises, children, families)
            children.insert(0, step(parents[0], k, noise.normal(k, 0, families.count(0))[None] if z is None else z))
        parents = sorted(children, key=lambda state: -state.reward)[: kept[k]]
    return best(parents).x0[0]


@pytest.mark.parametrize("recombine", [True, False])
@pytest.mark.parametrize(
    ("parents", "nfe", "steps", "kept"), [(1, 16, 4, [1] * 4), (3, 22, 4, [3, 3, 2, 1]), (2, 6, 2, [2, 1])]
)
def test_the_plain_loop_gives_the_same_sample(
    plane: ToyModel, recombine: bool, parents: int, nfe: int, steps: int, kept: list[int]
) -> None:
    found = sampled(plane, Beam(parents, recombine), nfe, steps)
    torch.testing.assert_close(found, plain_beam(plane, even_shares(nfe, steps), kept, recombine=recombine))


@pytest.mark.parametrize(("streams", "m", "steps"), [(1, 5, 3), (2, 4, 4), (2, 3, 3)])
def test_each_stream_recombines_its_own_noises(plane: ToyModel, streams: int, m: int, steps: int) -> None:
    noise, step = Noise(5, 0, plane.shape, plane.dtype), stepper(plane, "pair", REWARD, EulerMaruyama(), steps)
    ends = []
    for i in range(streams):
        state = best([step(NOTHING, 0, noise.normal(0, i, j)[None]) for j in range(m)])
        for k in range(1, steps):
            noises = [noise.normal(k, i, j)[None] for j in range(m - (m > LEAST))]
            children = [step(state, k, z) for z in noises]
            if m > LEAST:
                z = of_noises(noises, children, [0] * len(noises))
                assert z is not None
                children.insert(0, step(state, k, z))
            state = best(children)
        ends.append(state)
    found = sampled(plane, SVDD(streams, recombine=True), streams * m * steps, steps)
    torch.testing.assert_close(found, best(ends).x0[0])


def test_what_must_follow_the_law_of_the_kernel_is_not_recombined() -> None:
    with pytest.raises(BadSetting, match="tilts the law of the kernel"):
        SVDD(temperature=0.5, recombine=True)


def test_along_an_ode_there_is_nothing_to_recombine(plane: ToyModel) -> None:
    sampler = Sampler(Linear(), Euler(), steps=3)
    task = Task(plane, "pair", REWARD)
    for one, other in ((Beam(), Beam(recombine=False)), (SVDD(recombine=True), SVDD())):
        a, b = completed(Engine().run([Job(task, search, 24, 5, sampler) for search in (one, other)]))
        assert torch.equal(a.x0, b.x0)


@pytest.mark.slow
@pytest.mark.parametrize(("smooth", "nfe"), [(True, 100), (False, 200)])
def test_many_groups_come_right_together(smooth: bool, nfe: int) -> None:
    """On the compositional toy, with one noise for each parent, of its own children alone, it was .90 and .78."""
    toy, seeds = compositional_toy(), 60
    jobs = [Job(toy.task(smooth=smooth), Beam(), nfe, seed) for seed in range(seeds)]
    right = torch.stack([toy.right(result.x0[None])[0] for result in completed(Engine(128).run(jobs))])
    assert right.double().mean() >= 0.93
