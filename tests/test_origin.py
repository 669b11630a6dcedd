"""Models that set out from a clean state, noised part of the way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.grids import Uniform
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.dynamics.kernels import Euler
from rollflow.engine import Engine, Job, Observer, Spending, Task
from rollflow.errors import RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Reward
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, SVDD, BestOfN, CoDe, RolloverBudget, Search, SearchOverPaths

START = 0.6


class FromPicture(ToyModel):
    """Sets out from the point (2, -1), noised to 0.6."""

    origin = torch.tensor([2.0, -1.0], dtype=torch.float64)

    def start(self, steps: int) -> float:
        return START


@pytest.fixture
def model(plane: ToyModel) -> FromPicture:
    return FromPicture(plane.mixtures)


class Levels(Observer):
    """Noise levels of all that is scored."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.seen.append(request.noise_level)


def test_states_begin_at_the_noised_origin(model: FromPicture) -> None:
    """One Euler step from t = 0.6 is the clean estimate of (1 - t) origin + t noise there."""
    sampler = Sampler(Linear(), Euler(), steps=1, finish=False)
    (result,) = Engine().run([Job(Task(model, "corners", ToyReward()), BestOfN(), 1, 4, sampler)])
    t = torch.tensor([START], dtype=torch.float64)
    x = (1 - t) * model.origin + t * Noise(4, 0, model.shape, model.dtype).normals(0, [0], [0])
    torch.testing.assert_close(result.x0, (x - t * model.velocity(x, t, ["corners"]))[0])


@pytest.mark.slow
@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
def test_the_ode_ends_where_it_does_along_the_models_own_path(model: FromPicture, interpolant: Interpolant) -> None:
    ends = []
    for path in (Linear(), interpolant):
        sampler = Sampler(path, Euler(), Uniform(), steps=1000, finish=True)
        nfe = BestOfN().smallest_nfe(sampler.bind(model))
        (result,) = Engine().run([Job(Task(model, "corners", ToyReward()), BestOfN(), nfe, 7, sampler)])
        ends.append(result.x0)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-3)


@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
@pytest.mark.parametrize(
    "search", [BestOfN(), SVDD(2), CoDe(2), SMC(particles=4), RolloverBudget(1, 3)], ids=lambda s: s.name
)
def test_every_search_sets_out_there(model: FromPicture, search: Search, interpolant: Interpolant) -> None:
    sampler, levels = Sampler(interpolant, steps=5), Levels()
    job = Job(Task(model, "corners", ToyReward()), search, 60, 1, sampler)
    (result,) = Engine(observers=[levels]).run([job])
    assert job.dynamics.noise_level(0) == pytest.approx(START)
    assert max(levels.seen) <= START + 1e-9
    assert result.spent.nfe <= 60
    assert result.finished


def test_a_search_over_paths_from_pure_noise_is_refused(model: FromPicture) -> None:
    with pytest.raises(RollflowError, match="pure noise"):
        Job(Task(model, "corners", ToyReward()), SearchOverPaths(), 200, 0, Sampler(Linear(), Euler()))
