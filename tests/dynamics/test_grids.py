"""Time grids against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from rollflow.dynamics.conversions import Conversion
from rollflow.dynamics.grids import GRIDS, Arc, Grid, Matched, Shifted, Uniform
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial

ALL = [
    Uniform(),
    Arc(),
    Shifted(3.0),
    Shifted(0.3),
    Shifted.from_resolution(4096),
    Matched(),
    Matched(Cosine(), Shifted(3.0)),
]


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


@pytest.mark.parametrize("other", [VP(), Cosine(), Polynomial(2)], ids=str)
@pytest.mark.parametrize("grid", [Uniform(), Arc()], ids=str)
def test_matched_times_are_as_noisy_as_the_others(other: Interpolant, grid: Grid) -> None:
    """All but the first have the other's signal-to-noise ratio."""
    times, others = Matched(other, grid)(10)[1:-1], grid(10)[1:-1]
    torch.testing.assert_close((1 - times) / times, other.alpha(others) / other.sigma(others), rtol=1e-10, atol=0)


def test_matching_moves_the_start_of_vp_and_nothing_else() -> None:
    """VP starts at 0.9935 in linear time."""
    stands = Conversion(Linear(), VP()).time(Arc()(10))
    assert stands[0].item() == pytest.approx(1 / (1 + math.exp(-10.05 / 2) / math.sqrt(1 - math.exp(-10.05))))
    assert (1 - stands[0]).item() == pytest.approx(0.0065, abs=5e-5)
    times = Matched()(10)
    assert torch.equal(times[1:], stands[1:])
    assert times[0] == 1


def test_matching_the_linear_interpolant_leaves_its_grid() -> None:
    assert torch.equal(Matched(Linear(), Arc())(10), Arc()(10))


@pytest.mark.parametrize("steps", [0, -3])
def test_a_grid_without_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps of a time grid must be a whole number >= 1, not {steps}"):
        Uniform()(steps)


def test_registered_names_construct_and_bad_shifts_are_refused() -> None:
    settings = {"levels": {"levels": (1.0, 0.5)}}
    assert {name: type(cls(**settings.get(name, {}))) for name, cls in GRIDS.items()} == GRIDS
    assert GRIDS.make("matched(interpolant=cosine, grid=shifted(shift=2))") == Matched(Cosine(), Shifted(2.0))
    with pytest.raises(ValueError, match=r"shift of Shifted must be a finite number >= 1e-06 and .*, not 0\.0"):
        Shifted(0.0)
