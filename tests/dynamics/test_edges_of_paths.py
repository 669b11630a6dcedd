"""Interpolants and conversions at the edges: bounds of settings, defaults, and times of pure noise or none."""

from __future__ import annotations

import math

import pytest
import torch

from rollflow.dynamics.conversions import as_float, velocity_from_noise
from rollflow.dynamics.interpolants import INTERPOLANTS, VP, Linear, Polynomial
from rollflow.errors import BadSetting, UnknownName


def test_bounds_of_settings() -> None:
    assert (VP().beta_min, VP().beta_max, Polynomial().n) == (0.1, 20.0, 2.0)
    assert (VP(1.0, 1000.0).beta_max, VP(1.0, 1.0).beta_max, Polynomial(1.0).n, Polynomial(100.0).n) == (
        1000,
        1,
        1,
        100,
    )
    for low, high in ((1.0, 1000.5), (0.0, 1.0), (1.0, 0.9)):
        with pytest.raises(BadSetting, match="of VP"):
            VP(low, high)
    for n in (0.9, 100.5):
        with pytest.raises(BadSetting, match="n of Polynomial"):
            Polynomial(n)


def test_an_unknown_path_is_called_so() -> None:
    with pytest.raises(UnknownName, match=r"^unknown interpolant 'straight'"):
        INTERPOLANTS.resolve("straight")


def test_one_time_is_a_float_and_times_of_rows_are_a_tensor() -> None:
    """Which coefficients are remembered at."""
    rows = torch.tensor([0.25, 0.5], dtype=torch.float64)
    assert type(as_float(torch.tensor(0.25, dtype=torch.float64))) is float
    assert as_float(rows) is rows


def test_velocity_from_noise_at_both_ends() -> None:
    """u = eps - x at t = 0, where x is the clean sample; nothing can be told from pure noise."""
    x, eps = torch.tensor([[0.5, -2.0]]).double(), torch.tensor([[1.5, 1.0]]).double()
    assert torch.equal(velocity_from_noise(Linear(), eps, x, 0.0), eps - x)
    assert velocity_from_noise(Linear(), eps, x, 1.0).isnan().all()
    assert velocity_from_noise(Linear(), eps, x, torch.tensor([1.0]).double()).isnan().all()


def test_no_time_is_beyond_1() -> None:
    """Also where rounding alone would make it so, as with these rates at pure noise."""
    assert VP(0.1, 2.0).time_at_log_snr(-math.inf) == 1
    assert VP(0.2, 3.0).time_at_log_snr(-1e3) == 1
