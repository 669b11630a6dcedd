"""SMC at its edges: the smallest populations, what a unit more buys, and a population of which none can continue."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.grids import Arc
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import EulerMaruyama
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Grad, Request, Reward, Save, Slope, Velocity, drive
from rollflow.sampler import Sampler
from rollflow.search import SMC, Finished, Progress, Propagator

DEAD = -math.inf


def test_two_particles_are_the_fewest_and_a_unit_is_a_trajectory_or_a_particle_of_one_step(line: ToyModel) -> None:
    """A whole trajectory if their number is the same at all steps, and a single particle if it falls."""
    dynamics = Sampler(Linear(), steps=4).bind(line)
    assert [SMC().price(dynamics, surplus).nfe for surplus in (0, 1, 3)] == [8, 12, 20]
    assert [SMC(ratio=0.5).price(dynamics, surplus).nfe for surplus in (0, 1, 3)] == [8, 9, 11]
    assert [SMC(particles=6).price(dynamics, surplus).nfe for surplus in (0, 1, 3)] == [24, 24, 24]
    assert [SMC(particles=3, ratio=0.5).price(dynamics, surplus).nfe for surplus in (0, 3)] == [12, 12]


def test_the_last_particles_are_finished(line: ToyModel) -> None:
    """After two steps of the arc each needs one evaluation more, and only the samples are scored then."""
    dynamics = Sampler(Linear(), grid=Arc(), steps=2).bind(line)
    assert dynamics.finish_nfe == 1
    schedule = SMC(particles=6, ratio=0.5).schedule(dynamics, 0)
    assert [(stage.rows, stage.score) for stage in schedule.stages] == [(8, True), (4, False)]
    assert schedule.finished == 4
    free = SMC(particles=6, ratio=0.5).schedule(Sampler(Linear(), steps=2).bind(line), 0)
    assert [(stage.rows, stage.score) for stage in free.stages] == [(8, True), (4, True)]


def run(
    model: ToyModel, search: SMC, rewards: list[list[float]], *, guided: bool = False, velocity: float = 0.0
) -> tuple[Finished, list[Progress]]:
    """A run with the rewards of a list, a row a step, and one velocity for all states."""
    waiting, saved = list(rewards), list[Progress]()

    def answer(request: Request) -> Any:
        match request:
            case Velocity(x):
                return torch.full_like(x, velocity)
            case Reward():
                return torch.tensor(waiting.pop(0), dtype=torch.float64)
            case Grad(x):
                clean = torch.arange(float(len(x)), dtype=torch.float64)[:, None] + 10 * len(waiting)
                reward = torch.tensor(waiting.pop(0), dtype=torch.float64)
                return Slope(torch.full_like(x, velocity), clean, reward, torch.ones_like(x))
            case Save(state):
                saved.append(state)
        return None

    sampler = Sampler(Linear(), EulerMaruyama(), steps=len(rewards), guidance=DPS(0.1) if guided else None)
    noise = Noise(2, 0, (1,), torch.float64)
    return drive(search.population(Propagator(sampler.bind(model), noise, sum(map(len, rewards)))), answer), saved


def test_a_population_of_which_none_can_continue_ends(line: ToyModel) -> None:
    """Velocities that are not finite make children of which none has a weight: they are the last."""
    result, saved = run(line, SMC(), [[1.0, 2.0, 0.0]] * 4, guided=True, velocity=math.nan)
    assert [progress.step for progress in saved] == [0, 1]
    assert saved[1].extra.log_w.tolist() == [DEAD] * 3
    assert (result.reward, result.noise_level, result.row, result.diagnostics) == (DEAD, 0.75, 0, None)
    assert torch.equal(result.x0, torch.tensor([30.0], dtype=torch.float64))


def test_a_population_whose_samples_must_all_not_be_chosen_returns_one_without_figures(line: ToyModel) -> None:
    for draw in (True, False):
        result, _ = run(line, SMC(draw=draw), [[0.0, 1.0], [DEAD, DEAD]])
        assert (result.reward, result.row, result.diagnostics) == (DEAD, 0, None)


@pytest.mark.parametrize(
    ("threshold", "resampled"), [(0.0, False), (0.49, False), (0.5, False), (0.51, True), (1.0, True)]
)
def test_the_effective_sample_size_that_resamples(line: ToyModel, threshold: float, resampled: bool) -> None:
    """Two of four particles have equal weights and the others none: a size of 2, half of all."""
    result, saved = run(line, SMC(threshold=threshold), [[0.0, DEAD, 0.0, DEAD], [1.0, 2.0, 3.0, 4.0]])
    assert saved[0].extra.ess == (2.0,)
    assert (saved[1].ancestors is not None) == resampled
    assert result.diagnostics is not None
    assert result.diagnostics["resamplings"] == int(resampled)


def test_the_same_number_of_ancestors_is_drawn_with_the_uniforms_of_the_step_before(line: ToyModel) -> None:
    """Systematic resampling: one uniform of step 0 for the ancestors of step 1."""
    _, saved = run(line, SMC(temperature=1.0), [[0.0, 1.0, 2.0], [0.0] * 3, [0.0] * 3])
    u = float(Noise(2, 0, (1,), torch.float64).uniform(0, 1))
    weights: Tensor = torch.softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0).cumsum(0)
    expected = [int((weights <= (n + u) / 3).sum()) for n in range(3)]
    assert saved[1].ancestors is not None
    assert saved[1].ancestors.tolist() == expected
