"""Time grids against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from rollflow.schedules import GRIDS, Arc, Grid, Shifted, Uniform

ALL = [Uniform(), Arc(), Shifted(3.0), Shifted(0.3), Shifted.from_resolution(4096)]


@pytest.mark.parametrize("grid", ALL, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 997])
def test_grids_fall_strictly_from_exactly_one_to_exactly_zero(grid: Grid, steps: int) -> None:
    times = grid(steps)
    assert times.shape == (steps + 1,)
    assert times.dtype == torch.float64
    assert times[0] == 1
    assert times[-1] == 0
    assert (times.diff() < 0).all()


def test_uniform_times_are_correctly_rounded() -> None:
    assert Uniform()(10).tolist() == [i / 10 for i in range(10, -1, -1)]


def test_arc_is_the_quarter_circle_of_the_paper() -> None:
    expected = [math.sqrt(1 - (1 - i / 10) ** 2) for i in range(10, -1, -1)]
    assert Arc()(10).tolist() == pytest.approx(expected, abs=1e-15)
    steps = -Arc()(10).diff()
    assert (steps.diff() > 0).all()


def test_shift_multiplies_the_noise_to_signal_ratio() -> None:
    uniform, shifted = Uniform()(50)[1:-1], Shifted(2.5)(50)[1:-1]
    torch.testing.assert_close(shifted / (1 - shifted), 2.5 * uniform / (1 - uniform))
    assert torch.equal(Shifted(1.0)(50), Uniform()(50))


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (2176, 0.825), (8192, 1.15 + 0.65 * 4096 / 3840)])
def test_resolution_sets_the_shift_of_flux(tokens: int, mu: float) -> None:
    grid = Shifted.from_resolution(tokens)
    assert math.log(grid.shift) == pytest.approx(mu, abs=1e-14)
    t = Uniform()(20)[1:-1]
    torch.testing.assert_close(grid(20)[1:-1], math.exp(mu) / (math.exp(mu) + (1 / t - 1)))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_without_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 step.*steps={steps}"):
        Uniform()(steps)


def test_registered_names_construct_and_bad_shifts_are_refused() -> None:
    assert {name: type(cls()) for name, cls in GRIDS.items()} == GRIDS
    with pytest.raises(ValueError, match=r"shift > 0.*got 0\.0"):
        Shifted(0.0)
