"""The reverse SDE against the exact law of Gaussian data, and its coefficients against their formulas."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import pytest
import torch
from laws import INTERPOLANTS, MEAN, STD, affine_velocity, at_noise, carry, gaussian, lopsided, slope

from rollflow.dynamics.conversions import Conversion
from rollflow.dynamics.grids import Uniform
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear, Polynomial
from rollflow.dynamics.kernels import (
    Clipped,
    Constant,
    Converted,
    DiffusionCoefficient,
    EulerMaruyama,
    Exponential,
    Memoryless,
    Power,
    Sigma,
    Sine,
    Tangent,
)

COEFFICIENTS = [
    Power(),
    Constant(0.7),
    Sigma(1.5),
    Sine(1.5),
    Exponential(2.0, 1.5),
    Tangent(2.0),
    Clipped(Power(), 1.2),
    Memoryless(),
    Memoryless(math.sqrt(0.5)),
    Converted(latest=0.9),
]
TIMES = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)
every_coefficient = pytest.mark.parametrize("diffusion", COEFFICIENTS, ids=str)
every_pair = pytest.mark.parametrize(("interpolant", "other"), [*permutations(INTERPOLANTS, 2)], ids=str)


@every
@every_coefficient
def test_euler_maruyama_has_the_moments_of_the_affine_recursion(
    interpolant: Interpolant, diffusion: DiffusionCoefficient
) -> None:
    kernel, model = EulerMaruyama(diffusion), gaussian(interpolant)
    mean, variance = by_moments = at_noise(interpolant)
    for t, s in pairwise(Uniform()(12)):
        k, b = affine_velocity(interpolant, t)
        marginal = interpolant.alpha(t) ** 2 * STD**2 + interpolant.sigma(t) ** 2
        g2, h = diffusion.g(interpolant, t) ** 2, t - s
        pull = g2 / (2 * marginal)
        factor, offset = 1 - h * (k + pull), -h * (b - pull * interpolant.alpha(t) * MEAN)
        mean, variance = factor * mean + offset, factor**2 * variance + g2 * h
        by_moments = carry(kernel, interpolant, model.velocity, by_moments, t, s)
    torch.testing.assert_close(torch.stack(by_moments), torch.stack((mean, variance)), rtol=1e-10, atol=1e-10)


@every
@every_coefficient
@pytest.mark.slow
def test_euler_maruyama_keeps_the_law_to_first_order(interpolant: Interpolant, diffusion: DiffusionCoefficient) -> None:
    """Gaussian data stay Gaussian: mean and variance at t = 0, without sampling, for any g."""
    kernel, model = EulerMaruyama(diffusion), gaussian(interpolant)

    def error(steps: int) -> float:
        law = at_noise(interpolant)
        for t, s in pairwise(Uniform()(steps)):
            law = carry(kernel, interpolant, model.velocity, law, t, s)
        return (law[0] - MEAN).abs().item() + (law[1] - STD**2).abs().item()

    errors = [error(steps) for steps in (100, 200, 400)]
    assert errors[-1] < 2 / 400
    # For Linear the first-order error of the memoryless coefficient all but cancels, and the order with it.
    assert errors[0] < 1e-4 or slope(errors) == pytest.approx(1.0, abs=0.1)


def test_coefficients_are_their_formulas() -> None:
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    torch.testing.assert_close(Power().g(Linear(), t), 3 * t**2)
    torch.testing.assert_close(Constant(0.7).g(VP(), t), torch.full_like(t, 0.7))
    torch.testing.assert_close(Sigma(2.0).g(VP(), t), 2 * VP().sigma(t))
    torch.testing.assert_close(Memoryless(math.sqrt(0.5)).g(Linear(), t), torch.sqrt(t / (1 - t)))
    torch.testing.assert_close(Memoryless().g(VP(), t), torch.sqrt(0.1 + 19.9 * t))
    ends, capped = torch.tensor([0.0, 0.9, 1.0], dtype=torch.float64), math.sqrt(2 * 0.9 / 0.1)
    torch.testing.assert_close(Memoryless().g(Linear(), ends).tolist(), [0.0, capped, capped])


def test_rising_coefficients_are_their_formulas() -> None:
    t = torch.tensor([0.0, 1 / 3, 0.5, 1.0], dtype=torch.float64)
    for diffusion, expected in (
        (Sine(2.0), [0.0, 1.0, math.sqrt(2), 2.0]),
        (Tangent(2.0), [0.0, 2 * (2 - math.sqrt(3)), 2 * (math.sqrt(2) - 1), 2.0]),
        (Exponential(2.0, math.log(4)), [0.0, 2 * (4 ** (1 / 3) - 1) / 3, 2 / 3, 2.0]),
        (Clipped(Sine(2.0), 1.2), [0.0, 1.0, 1.2, 1.2]),
        (Clipped(Sine(2.0), 0.0), [0.0] * 4),
    ):
        torch.testing.assert_close(diffusion.g(Linear(), t), torch.tensor(expected, dtype=torch.float64))


def test_the_coefficient_of_vp_in_linear_time() -> None:
    """g_t = g_s sqrt(2 t / ((1 - t) T'(s))), with the total noising T solved for where alpha / sigma = (1 - t) / t."""
    total = torch.log1p((TIMES / (1 - TIMES)) ** 2)
    s = (-0.1 + torch.sqrt(0.1**2 + 2 * 19.9 * total)) / 19.9
    expected = 3 * s**2 * torch.sqrt(2 * TIMES / ((1 - TIMES) * (0.1 + 19.9 * s)))
    torch.testing.assert_close(Converted().g(Linear(), TIMES), expected)


@every_pair
def test_a_converted_coefficient_is_scaled_by_the_conversion(interpolant: Interpolant, other: Interpolant) -> None:
    """g_t = g_bar_s / (c_s sqrt(dt / ds)), the derivative by central differences."""
    conversion, s, h = Conversion(interpolant, other), TIMES, 1e-5
    dt_ds = (conversion.time(s + h) - conversion.time(s - h)) / (2 * h)
    expected = Power().g(other, s) / (conversion.scale(s) * torch.sqrt(dt_ds))
    torch.testing.assert_close(
        Converted(Power(), other).g(interpolant, conversion.time(s)), expected, rtol=1e-7, atol=0
    )


@every_pair
def test_to_forget_is_to_forget_in_any_coordinates(interpolant: Interpolant, other: Interpolant) -> None:
    """The memoryless coefficient of one interpolant is, converted, that of the other."""
    converted = Converted(Memoryless(latest=1 - 1e-9), other).g(interpolant, TIMES)
    torch.testing.assert_close(converted, Memoryless(latest=1 - 1e-9).g(interpolant, TIMES))


def test_a_converted_coefficient_ends_where_the_other_interpolant_begins() -> None:
    first = Conversion(Linear(), VP()).time(1.0)
    t = torch.stack([first, (1 + first) / 2, torch.ones_like(first)])
    g = Converted().g(Linear(), t)
    torch.testing.assert_close(g, (3 / torch.sqrt((1 - t[0]) / t[0] * 20 / 2)).expand(3))
    capped = Converted(latest=0.8).g(Linear(), torch.tensor([0.8, 0.9, 1.0], dtype=torch.float64))
    assert torch.equal(capped, Converted().g(Linear(), torch.tensor([0.8] * 3, dtype=torch.float64)))


def test_a_converted_coefficient_that_is_infinite_is_refused() -> None:
    one = torch.ones((), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"infinite at t = 1 of Linear.*set latest below 1"):
        Converted(Sigma(), Cosine()).g(Linear(), one)
    assert Converted(Sigma(), Cosine(), latest=0.99).g(Linear(), one).isfinite()
    for latest in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="latest of Converted must be a finite number"):
            Converted(latest=latest)


@pytest.mark.parametrize(
    ("interpolant", "other"), [(Linear(), VP()), (Linear(), Cosine()), (VP(), Polynomial(2))], ids=str
)
def test_grid_and_coefficient_together_are_the_other_sde(interpolant: Interpolant, other: Interpolant) -> None:
    """One step of either, brought to the same coordinates: they differ at second order, a step's own error."""
    model, bar = lopsided(interpolant), lopsided(other)
    conversion, s = Conversion(interpolant, other), torch.tensor(0.6, dtype=torch.float64)
    x_bar = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    x, t = conversion.to_source(x_bar, s), conversion.time(s)

    def errors(h: float) -> tuple[float, float]:
        mean_bar, std_bar = EulerMaruyama().moments(other, x_bar, bar.velocity(x_bar, s), s, s - h)
        kernel = EulerMaruyama(Converted(Power(), other))
        mean, std = kernel.moments(interpolant, x, model.velocity(x, t), t, conversion.time(s - h))
        scale = conversion.scale(s - h)
        return (scale * mean - mean_bar).abs().max().item(), ((scale * std) ** 2 - std_bar**2).abs().item()

    means, variances = zip(*(errors(0.02 / 2**i) for i in range(5)), strict=True)
    assert slope(list(means)) == pytest.approx(2.0, abs=0.1)
    assert slope(list(variances)) == pytest.approx(2.0, abs=0.1)


@pytest.mark.slow
def test_grid_and_coefficient_together_have_the_law_of_vp() -> None:
    """From where VP starts to the data: means and variances of the two SDEs approach each other, and the data's."""
    both, vp, conversion = EulerMaruyama(Converted()), EulerMaruyama(), Conversion(Linear(), VP())

    def apart(steps: int) -> float:
        mean, variance = other = at_noise(VP())
        scale, times = conversion.scale(1.0), Uniform()(steps)
        one = mean / scale, variance / scale**2
        for t, s in pairwise(times):
            one = carry(both, Linear(), gaussian(Linear()).velocity, one, conversion.time(t), conversion.time(s))
            other = carry(vp, VP(), gaussian(VP()).velocity, other, t, s)
        assert math.hypot(one[0] - MEAN, one[1] - STD**2) < 2 / steps
        return math.hypot(one[0] - other[0], one[1] - other[1])

    assert slope([apart(steps) for steps in (100, 200, 400)]) == pytest.approx(1.0, abs=0.15)
