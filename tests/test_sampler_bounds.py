"""What a sampler is when it is bound to a model, at the edges: defaults, starts, wrong grids, and costs per step."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.conversions import Conversion
from rollflow.dynamics.grids import Arc, Grid, Uniform
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Interpolant, Linear, Polynomial
from rollflow.dynamics.kernels import Euler, Heun
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.sampler import Dynamics, Sampler, even_shares, linear_shares


@dataclass(frozen=True)
class Given(Grid):
    """The times that it is given."""

    times: tuple[float, ...]

    def __call__(self, steps: int) -> Tensor:
        return torch.tensor(self.times, dtype=torch.float64)


class Whole(Uniform):
    whole = True


class Opinionated(ToyModel):
    """A model with a grid of its own, that starts where it is told."""

    grid = Arc()
    begins = 1.0

    def start(self, steps: int) -> float:
        return self.begins


def opinionated(line: ToyModel, begins: float) -> Opinionated:
    model = Opinionated(line.mixtures)
    model.begins = begins
    return model


def test_defaults(line: ToyModel) -> None:
    sampler = Sampler()
    assert (sampler.interpolant, sampler.steps, sampler.grid, sampler.finish) == (VP(), 10, None, None)
    assert Dynamics(Sampler(Linear(), grid=Uniform()), Linear()).start == 1.0
    assert Sampler(Linear()).bind(line).sampler.grid == Uniform()
    assert Sampler(VP()).bind(line).sampler.grid == Arc()
    assert Sampler(Linear(), steps=1).bind(line).times.tolist() == [1.0, 0.0]
    with pytest.raises(BadSetting, match="steps must be a whole number >= 1, not 0"):
        Sampler(steps=0)


def test_a_models_own_grid_is_taken_along_its_own_interpolant_alone(line: ToyModel) -> None:
    model = opinionated(line, 1.0)
    assert Sampler(Linear()).bind(model).sampler.grid == Arc()
    assert Sampler(Polynomial(2.0)).bind(model).sampler.grid == Uniform()
    assert Sampler(Linear(), grid=Uniform()).bind(model).sampler.grid == Uniform()


@pytest.mark.parametrize("begins", [0.0, -0.5, 1.5, 2.0])
def test_a_start_outside_of_0_to_1_is_refused(line: ToyModel, begins: float) -> None:
    with pytest.raises(BadSetting, match="start of the model"):
        Sampler(Linear()).bind(opinionated(line, begins))


@pytest.mark.parametrize("path", [Linear(), Polynomial(2.0), VP()], ids=str)
def test_a_later_start_scales_the_grid(line: ToyModel, path: Interpolant) -> None:
    """Its first time is that at which the interpolant is as noisy as the model's own time 0.36: for t^2 that is 0.6."""
    dynamics = Sampler(path, grid=Uniform(), steps=4).bind(opinionated(line, 0.36))
    first = path.time_at_log_snr(Linear().log_snr(torch.tensor(0.36))) if path != Linear() else torch.tensor(0.36)
    torch.testing.assert_close(dynamics.times, first.double() * torch.tensor([1, 0.75, 0.5, 0.25, 0]).double())
    if path == Polynomial(2.0):
        assert float(dynamics.times[0]) == pytest.approx(0.6, abs=1e-7)
    assert dynamics.noise_level(0) == pytest.approx(0.36, abs=1e-7)


def test_a_start_from_pure_noise_leaves_the_grid_as_it_is(line: ToyModel) -> None:
    """Also a grid that starts a little below 1, which is nobody's business then."""
    dynamics = Sampler(Linear(), grid=Given((0.9, 0.4, 0.0)), steps=2).bind(line)
    assert dynamics.times.tolist() == [0.9, 0.4, 0.0]
    later = Sampler(Linear(), grid=Given((0.9, 0.45, 0.0)), steps=2).bind(opinionated(line, 0.5))
    assert later.times.tolist() == pytest.approx([0.5, 0.25, 0.0], abs=1e-15)


def test_the_conversion_leads_from_the_model_to_the_sampler(line: ToyModel) -> None:
    assert Sampler(VP()).bind(line).conversion == Conversion(Linear(), VP())


@pytest.mark.parametrize(
    "times",
    [
        (1.5, 0.5, 0.0),
        (1.0, 0.5, 0.1),
        (1.0, 0.5, 0.5, 0.0),
        (1.0, 0.0),
        (1.0, 1.0, 0.0),
        (1.0, 1.5, 0.0),
        (0.2, 0.5, 0.0),
        (1.0, 0.0, -0.5),
    ],
    ids=str,
)
def test_a_grid_that_does_not_fall_from_1_to_0_is_refused(line: ToyModel, times: tuple[float, ...]) -> None:
    with pytest.raises(BadSetting, match="do not fall from 1 to 0 in 2 steps"):
        _ = Sampler(Linear(), grid=Given(times), steps=2).bind(line).times


@pytest.mark.parametrize(
    ("last", "finish", "grid_is_whole", "steps", "finished"),
    [
        (0.5, True, False, 1, True),
        (0.5, False, False, 1, True),
        (0.51, True, False, 2, True),
        (0.51, False, False, 1, False),
        (0.99, True, False, 2, True),
        (0.99, False, False, 1, False),
        (1e-12, True, False, 1, True),
        (1e-12, False, False, 1, True),
    ],
)
def test_finishing(line: ToyModel, last: float, finish: bool, grid_is_whole: bool, steps: int, finished: bool) -> None:
    """Two steps: what lies above a noise level of 1 / 2 is not finished, and is finished in steps of at most that."""
    dynamics = Sampler(Linear(), grid=Given((1.0, last, 0.0)), steps=2, finish=finish).bind(line)
    assert (dynamics.finishing_steps, dynamics.finish_nfe, dynamics.finished) == (steps, steps - 1, finished)
    assert dynamics.last_noise_level == pytest.approx(last)


@pytest.mark.parametrize("finish", [True, False])
def test_a_whole_grid_needs_no_finishing(line: ToyModel, finish: bool) -> None:
    dynamics = Sampler(VP(), grid=Whole(), steps=2, finish=finish).bind(line)
    assert dynamics.last_noise_level > 0.5
    assert (dynamics.finishing_steps, dynamics.finish_nfe, dynamics.finished) == (1, 0, True)


def test_costs_of_a_step(line: ToyModel) -> None:
    """Euler and Heun with a look-ahead of 3 steps: what each evaluation and each child costs."""
    plain = Sampler(Linear(), Euler()).bind(line)
    assert (plain.propagate_nfe, plain.evaluate_nfe, plain.child_nfe, plain.guidance_nfe) == (1, 1, 1, 0)
    dear = Sampler(Linear(), Heun(), lookahead=ODELookahead(3), guidance=DPS(0.1)).bind(line)
    assert (dear.propagate_nfe, dear.evaluate_nfe, dear.child_nfe, dear.guidance_nfe) == (2, 3, 4, 1)
    assert dear.transitions == 9


def test_shares() -> None:
    assert even_shares(11, 4) == [2, 3, 3, 3]
    assert even_shares(8, 4) == [2, 2, 2, 2]
    assert linear_shares(20, 4, 0.25) == [8, 6, 4, 2]
    assert linear_shares(4, 4, 0.25) == [1, 1, 1, 1]
    assert linear_shares(5, 4, 0.25) == [2, 1, 1, 1]
    assert linear_shares(7, 1, 0.5) == [7]
    assert linear_shares(9, 3, 1.0) == [3, 3, 3]
    for parts, total, ratio in ((0, 3, 0.5), (3, 2, 0.5), (3, 9, 0.0), (3, 9, 1.5), (3, 9, -0.5)):
        with pytest.raises(BadSetting, match="expected 1 <= parts <= total and 0 < ratio <= 1"):
            linear_shares(total, parts, ratio)
