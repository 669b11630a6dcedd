"""Deterministic kernels against exact one-dimensional flows."""

from __future__ import annotations

import pytest
import torch
from laws import INTERPOLANTS, lopsided, slope

from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.kernels import DDIM, Euler, Heun, Kernel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.testing.laws import ask, finish, run

every = pytest.mark.parametrize("interpolant", INTERPOLANTS, ids=str)


def flow_error(kernel: Kernel, interpolant: Interpolant, steps: int) -> float:
    """Error in quantiles: the exact one-dimensional flow is the increasing map between the marginals."""
    model, x = lopsided(interpolant), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    alpha, sigma = interpolant.alpha(1.0), interpolant.sigma(1.0)
    noise = GaussianMixture(model.weights, alpha * model.means, (alpha**2 * model.stds**2 + sigma**2).sqrt())
    return (model.cdf(run(kernel, model, x, steps)) - noise.cdf(x)).abs().max().item()


@every
@pytest.mark.parametrize(("kernel", "order"), [(Euler(), 1.0), (Heun(), 2.0), (DDIM(0.0), 1.0)], ids=str)
@pytest.mark.slow
def test_order_of_convergence(kernel: Kernel, order: float, interpolant: Interpolant) -> None:
    errors = [flow_error(kernel, interpolant, steps) for steps in (40, 80, 160, 320)]
    assert errors[-1] < 5 / 320**order
    assert slope(errors) == pytest.approx(order, abs=0.15 * order)


@every
def test_heun_pays_for_the_rows_that_do_not_end_at_zero_and_for_no_other(interpolant: Interpolant) -> None:
    model, x = lopsided(interpolant), torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]
    t, s = torch.tensor([0.5, 0.4, 0.9, 0.2]).double(), torch.tensor([0.3, 0.0, 0.8, 0.0]).double()
    v = model.velocity(x, t)
    batch, nfe = finish(Heun().step(interpolant, x, v, t, s, None, ask), model)
    assert nfe == 2 * Heun().extra_nfe == 2
    for i in range(4):
        alone, _ = finish(Heun().step(interpolant, x[i : i + 1], v[i : i + 1], t[i], s[i], None, ask), model)
        assert torch.equal(alone, batch[i : i + 1])
    assert torch.equal(batch[s == 0], (x + (s - t)[:, None] * v)[s == 0])
    y = x + (s - t)[:, None] * v
    trapezoid = x + (s - t)[:, None] * (v + model.velocity(y, s)) / 2
    torch.testing.assert_close(batch[s > 0], trapezoid[s > 0])
