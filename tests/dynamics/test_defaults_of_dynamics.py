"""Defaults and bounds of grids, look-aheads and kernels, and what unknown names of them are called."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.grids import GRIDS, Arc, Matched, Shifted, Uniform
from rollflow.dynamics.interpolants import VP, Cosine, Interpolant, Linear
from rollflow.dynamics.kernels import (
    DDIM,
    GLASS,
    KERNELS,
    Clipped,
    Constant,
    Euler,
    EulerMaruyama,
    Exponential,
    FlowCPS,
    Heun,
    Memoryless,
    Power,
    Renoise,
    Sigma,
    Sine,
    Tangent,
)
from rollflow.dynamics.kernels.sde import COEFFICIENTS, Converted, log_snr_dot
from rollflow.dynamics.lookahead import LOOKAHEADS, ODELookahead
from rollflow.errors import BadSetting, UnknownName


def test_defaults() -> None:
    assert (Shifted().shift, ODELookahead().steps) == (3.0, 2)
    assert (Matched().interpolant, Matched().grid) == (VP(), Arc())
    assert not any(grid.whole for grid in (Uniform(), Arc(), Shifted(), Matched()))
    assert (Euler().stochastic, Heun().stochastic, Euler().extra_nfe, Heun().extra_nfe) == (False, False, 0, 1)


def test_bounds_of_shifts() -> None:
    assert (Shifted(1e-6).shift, Shifted(1e6).shift) == (1e-6, 1e6)
    for shift in (0.9e-6, 1e6 + 0.5, 0.0):
        with pytest.raises(BadSetting, match="shift of Shifted"):
            Shifted(shift)


@pytest.mark.parametrize(
    ("registry", "what"),
    [(GRIDS, "grid"), (KERNELS, "kernel"), (LOOKAHEADS, "look-ahead"), (COEFFICIENTS, "diffusion coefficient")],
    ids=lambda one: str(one)[:10],
)
def test_an_unknown_name_is_called_what_it_is(registry: Any, what: str) -> None:
    with pytest.raises(UnknownName, match=f"^unknown {what} 'nothing-of-the-kind'"):
        registry.resolve("nothing-of-the-kind")


@pytest.mark.parametrize("s", [torch.tensor(0.5), torch.tensor([0.5, 0.0, 0.25])], ids=["one", "rows"])
def test_heun_asks_at_the_times_that_it_was_given(s: Tensor) -> None:
    """One time stays one; of rows, those that do not end at 0."""
    asked: list[Tensor] = []

    def velocity(x: Tensor, t: Tensor) -> Generator[Any, Any, Tensor]:
        asked.append(t)
        yield from ()
        return torch.zeros_like(x)

    x, s = torch.ones(3, 1).double(), s.double()
    stepping = Heun().step(Linear(), x, x, torch.tensor(0.75).double().expand(s.shape), s, None, velocity)
    with pytest.raises(StopIteration) as stopped:
        next(stepping)
    assert torch.equal(asked[0], s if s.ndim == 0 else s[s > 0])
    half = (s - 0.75) / 2
    expected = 1 + torch.where(s > 0, half, 2 * half)
    torch.testing.assert_close(stopped.value.value[:, 0], expected.expand(3))


def test_defaults_of_kernels() -> None:
    assert (Power().scale, Power().exponent, Constant().value, Sigma().scale) == (3.0, 2.0, 1.0, 1.0)
    assert (Memoryless().scale, Memoryless().latest, Converted().latest) == (1.0, 0.9, 1.0)
    assert (Converted().inner, Converted().interpolant, EulerMaruyama().diffusion) == (Power(), VP(), Power())
    assert (Sine().scale, Exponential().scale, Exponential().rate, Tangent().scale) == (3.0, 3.0, 3.0, 3.0)
    assert Clipped() == Clipped(Tangent(), 1.0)
    assert (DDIM().eta, FlowCPS().n, GLASS().steps, GLASS().rho) == (1.0, 0.8, 4, None)
    stochastic = [GLASS(), DDIM(1.0), DDIM(0.01), FlowCPS(), FlowCPS(0.01), Renoise(), EulerMaruyama()]
    assert all(kernel.stochastic for kernel in stochastic)
    assert not any(kernel.stochastic for kernel in (DDIM(0.0), FlowCPS(0.0)))


@pytest.mark.parametrize(
    ("kind", "setting", "allowed", "refused"),
    [
        (Power, "scale", (0.0, 0.5), (-0.5,)),
        (Power, "exponent", (0.0, 0.5), (-0.5,)),
        (Constant, "value", (0.0, 0.5), (-0.5,)),
        (Sigma, "scale", (0.0, 0.5), (-0.5,)),
        (Sine, "scale", (0.0, 0.5), (-0.5,)),
        (Exponential, "scale", (0.0, 0.5), (-0.5,)),
        (Exponential, "rate", (0.01, 100.0), (0.0, -0.5, 100.5)),
        (Tangent, "scale", (0.0, 0.5), (-0.5,)),
        (Clipped, "most", (0.0, 0.5), (-0.5,)),
        (Memoryless, "scale", (0.0, 0.5), (-0.5,)),
        (Memoryless, "latest", (0.5, 1.0), (0.0, -0.5, 1.5)),
        (Converted, "latest", (0.5, 1.0), (0.0, -0.5, 1.5)),
        (DDIM, "eta", (0.0, 1.0), (-0.5, 1.5)),
        (FlowCPS, "n", (0.0, 1.0), (-0.5, 1.5)),
        (GLASS, "rho", (0.0, 0.99), (-0.5, 1.0)),
        (GLASS, "steps", (1, 10**5), (0, 10**5 + 1)),
        (ODELookahead, "steps", (1,), (0,)),
    ],
)
def test_bounds_of_kernels(kind: Any, setting: str, allowed: tuple[float, ...], refused: tuple[float, ...]) -> None:
    for value in allowed:
        assert getattr(kind(**{setting: value}), setting) == value
    for value in refused:
        with pytest.raises(BadSetting, match=setting):
            kind(**{setting: value})


def test_coefficients_are_chosen_by_text() -> None:
    for text, expected in (
        ("sine", Sine()),
        ("exponential(scale=1, rate=2)", Exponential(1.0, 2.0)),
        ("tangent(scale=0.5)", Tangent(0.5)),
        ("clipped(inner=power(scale=4), most=2)", Clipped(Power(4.0), 2.0)),
    ):
        assert COEFFICIENTS.make(text) == expected
        assert COEFFICIENTS.make(COEFFICIENTS.text(expected)) == expected


@pytest.mark.parametrize("path", [Linear(), VP(), Cosine()], ids=str)
def test_the_derivative_of_log_snr(path: Interpolant) -> None:
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    [expected] = torch.autograd.grad(path.log_snr(t).sum(), t)
    torch.testing.assert_close(log_snr_dot(path, t.detach()), expected)
