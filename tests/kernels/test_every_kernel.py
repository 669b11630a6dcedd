"""What all kernels promise, and whether their samples approach the exact law of a mixture."""

from __future__ import annotations

import inspect
import math
import re
from functools import cache

import pytest
import torch
from laws import EVEN, ask, finish, lopsided, run, wasserstein

from rollflow.interpolants import VP, Interpolant, Linear
from rollflow.kernels import (
    COEFFICIENTS,
    DDIM,
    GLASS,
    KERNELS,
    Converted,
    Euler,
    EulerMaruyama,
    FlowCPS,
    GaussianKernel,
    Heun,
    Kernel,
    Memoryless,
    Power,
    Renoise,
    Sigma,
)
from rollflow.models.gaussian_mixture import GaussianMixture
from rollflow.schedules import Arc, Grid

PARTICLES = 8_000
LINEAR = Linear()


@cache
def distance(kernel: Kernel, steps: int, interpolant: Interpolant = LINEAR, grid: Grid = EVEN) -> float:
    """W1 to the truth of particles drawn from 0.5 N(-1, 0.3^2) + 0.5 N(1, 0.3^2), all at once."""
    modes = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.3, 0.3]), interpolant)
    x = torch.randn(PARTICLES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return wasserstein(run(kernel, modes, x, steps, grid), modes)[0]


FLOOR = 0.0152
"""An upper bound of the distance at which as many exact samples are expected, by `wasserstein`."""


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_converges_if_its_docstring_says_so(name: str) -> None:
    """Yes: what is left after 200 steps is the floor and a little bias. No: what is left stands clear above it."""
    kind = KERNELS[name]
    claim = re.search(r"Converges to the data law: (yes|no)\b.+\Z", inspect.getdoc(kind) or "")
    assert claim is not None
    few, some, many = (distance(kind(), steps) for steps in (10, 50, 200))
    if claim[1] == "yes":
        assert many < FLOOR + 1.5 / 200
        assert many < max(few / 2, FLOOR)
    else:
        assert many > 2.5 * FLOOR
        assert many > 0.75 * some


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
def test_reference_figures(kernel: Kernel, interpolant: Interpolant, grid: Grid, at_10: float, at_50: float) -> None:
    """Measured before, with other samples: either is off by up to the floor."""
    assert distance(kernel, 10, interpolant, grid) == pytest.approx(at_10, abs=FLOOR)
    assert distance(kernel, 50, interpolant, grid) == pytest.approx(at_50, abs=FLOOR)


def test_inner_steps_of_glass_do_the_work_of_outer_ones() -> None:
    """With 5 transitions, 16 inner steps leave a fraction of the error of 1, for a constant correlation too."""
    assert distance(GLASS(16), 5) < distance(GLASS(1), 5) / 4
    assert distance(GLASS(16, 0.3), 5) < distance(GLASS(1, 0.3), 5) / 4


def test_ten_even_steps_are_too_long_for_the_first_noise_of_vp() -> None:
    """g^2 / 2 times the first step is 6.8 where VP begins and 0.83 at 0.97."""
    assert distance(EulerMaruyama(Converted()), 10) > 0.5
    assert distance(EulerMaruyama(Converted(latest=0.97)), 10) < 0.05 + FLOOR


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


@pytest.mark.parametrize("kernel", [EulerMaruyama(), DDIM(), FlowCPS(), Renoise(), GLASS()], ids=str)
def test_a_stochastic_kernel_refuses_to_go_without_noise(kernel: Kernel) -> None:
    x, t = torch.zeros(2, 1, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    assert kernel.stochastic
    with pytest.raises(ValueError, match=r"noise of shape \(2, 1\), not None"):
        finish(kernel.step(Linear(), x, x, t, t / 2, None, ask), lopsided(Linear()))


@pytest.mark.parametrize("kernel", [Euler(), Heun(), DDIM(0.0), FlowCPS(0.0)], ids=str)
def test_a_deterministic_kernel_ignores_noise(kernel: Kernel) -> None:
    model, x = lopsided(Linear()), torch.ones(2, 1, dtype=torch.float64)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert not kernel.stochastic
    results = [finish(kernel.step(Linear(), x, -x, t, t / 2, z, ask), model)[0] for z in (None, x)]
    assert torch.equal(*results)


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
