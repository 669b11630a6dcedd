"""Kernels beside each other: how near their samples come to the exact law of a mixture, and how they are named."""

from __future__ import annotations

import math

import pytest
import torch
from laws import lopsided

from rollflow.dynamics.grids import Arc, Grid
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.dynamics.kernels import (
    COEFFICIENTS,
    DDIM,
    GLASS,
    KERNELS,
    Converted,
    Euler,
    EulerMaruyama,
    FlowCPS,
    GaussianKernel,
    Kernel,
    Memoryless,
    Power,
    Renoise,
    Sigma,
)
from rollflow.testing.laws import EVEN, LINEAR, PARTICLES, ask, distance, finish, run, wasserstein

FLOOR = distance(Euler(), 10).floor
FLOW_GRPO = EulerMaruyama(Memoryless(math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("kernel", "interpolant", "grid", "at_10", "at_50"),
    [
        (Euler(), LINEAR, EVEN, 0.069, 0.018),
        (FLOW_GRPO, LINEAR, EVEN, 0.036, 0.008),
        (DDIM(1.0), LINEAR, EVEN, 0.076, 0.020),
        (FlowCPS(0.8), LINEAR, EVEN, 0.083, 0.051),
        (EulerMaruyama(), VP(), EVEN, 0.038, 0.006),
        (EulerMaruyama(), VP(), Arc(), 0.326, 0.114),
    ],
    ids=["ode", "em", "ddim", "cps", "vp-em", "vp-em-arc"],
)
@pytest.mark.slow
def test_reference_figures(kernel: Kernel, interpolant: Interpolant, grid: Grid, at_10: float, at_50: float) -> None:
    """Measured before, with other samples: either is off by up to the floor."""
    assert distance(kernel, 10, interpolant, grid).w1 == pytest.approx(at_10, abs=FLOOR)
    assert distance(kernel, 50, interpolant, grid).w1 == pytest.approx(at_50, abs=FLOOR)


def test_inner_steps_of_glass_do_the_work_of_outer_ones() -> None:
    """With 5 transitions, 16 inner steps leave a fraction of the error of 1, for a constant correlation too."""
    assert distance(GLASS(16), 5).w1 < distance(GLASS(1), 5).w1 / 4
    assert distance(GLASS(16, 0.3), 5).w1 < distance(GLASS(1, 0.3), 5).w1 / 4


def test_ten_even_steps_are_too_long_for_the_first_noise_of_vp() -> None:
    """g^2 / 2 times the first step is 6.8 where VP begins and 0.83 at 0.97."""
    assert distance(EulerMaruyama(Converted()), 10).w1 > 0.5
    assert distance(EulerMaruyama(Converted(latest=0.97)), 10).w1 < 0.05 + FLOOR


@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
@pytest.mark.parametrize(
    "kernel",
    [
        EulerMaruyama(),
        EulerMaruyama(Memoryless(math.sqrt(0.5))),
        EulerMaruyama(Converted(latest=0.95)),
        DDIM(0.5),
    ],
    ids=str,
)
@pytest.mark.slow
def test_samples_approach_the_exact_law(kernel: Kernel, interpolant: Interpolant) -> None:
    model = lopsided(interpolant)
    x = torch.randn(PARTICLES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    coarse, _ = wasserstein(run(kernel, model, x, 5), model)
    fine, floor = wasserstein(run(kernel, model, x, 150), model)
    # What exact samples would show (0.018 at most, on average), plus a first-order method's bias, 3 / steps.
    assert fine < floor + 3 / 150
    assert fine < coarse / 2


@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama(), DDIM(0.4), FlowCPS(), Renoise()], ids=str)
def test_a_step_is_its_moments_row_by_row(kernel: GaussianKernel) -> None:
    model = lopsided(VP())
    x, z = (torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(2))
    t, s = torch.tensor([1.0, 0.6, 0.2]).double(), torch.tensor([0.8, 0.5, 0.0]).double()
    v = model.velocity(x, t)
    mean, std = kernel.moments(VP(), x, v, t, s)
    batch, nfe = finish(kernel.step(VP(), x, v, t, s, z, ask), model)
    assert nfe == kernel.extra_nfe == 0
    assert torch.equal(batch, mean + std[:, None] * z)
    for i in range(3):
        row = slice(i, i + 1)
        alone, _ = finish(kernel.step(VP(), x[row], v[row], t[i], s[i], z[row], ask), model)
        assert torch.equal(alone, batch[row])


def test_registered_names_construct() -> None:
    assert {name: type(cls()) for name, cls in KERNELS.items()} == KERNELS
    assert {name: type(cls()) for name, cls in COEFFICIENTS.items()} == COEFFICIENTS


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("cps(n=0.5)", FlowCPS(0.5)),
        ("glass(steps=6, rho=0.4)", GLASS(6, 0.4)),
        ("glass(rho=none)", GLASS()),
        ("sde(diffusion=sigma(scale=2))", EulerMaruyama(Sigma(2.0))),
        (
            "sde(diffusion=converted(inner=power(scale=2), interpolant=vp(beta_max=10), latest=0.9))",
            EulerMaruyama(Converted(Power(2.0), VP(beta_max=10.0), 0.9)),
        ),
    ],
)
def test_kernels_from_text(text: str, kernel: Kernel) -> None:
    assert KERNELS.make(text) == kernel
