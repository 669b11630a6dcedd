"""Noises near a noise."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from rollflow.search.neighbours import in_ball, on_sphere


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.95])
def test_neighbours_on_the_sphere_have_the_angle_and_the_length(cosine: float) -> None:
    pivot = draws(1, 3, 4, 5)
    found = on_sphere(pivot, draws(50, 3, 4, 5, seed=1), cosine)
    n, y = pivot.flatten(), found.flatten(1)
    assert found.shape == (50, 3, 4, 5)
    torch.testing.assert_close(y.norm(dim=1), n.norm().expand(50))
    torch.testing.assert_close(y @ n / n.norm() ** 2, torch.full((50,), cosine, dtype=torch.float64))


def test_their_directions_are_uniform() -> None:
    """In three dimensions around (0, 0, 2): the angle around it is uniform, by a KS test."""
    y = on_sphere(torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64), draws(4000, 3, seed=2), 0.6)
    angle = torch.atan2(y[:, 1], y[:, 0]) / (2 * math.pi) + 0.5
    assert stats.kstest(angle.numpy(), "uniform").pvalue > 0.01
    torch.testing.assert_close(y[:, 2], torch.full((4000,), 1.2, dtype=torch.float64))


def test_a_noise_of_one_element_has_no_direction_across() -> None:
    torch.testing.assert_close(
        on_sphere(torch.tensor([[2.0]]), torch.tensor([[1.0], [-3.0]]), 0.5).flatten(), torch.ones(2)
    )


def test_neighbours_in_the_ball_are_as_far_as_the_number_says() -> None:
    pivot, uniform = draws(1, 2, 8), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    z = draws(3, 2, 8, seed=3)
    found = in_ball(pivot, z, uniform, 0.15)
    away = (found - pivot).flatten(1)
    assert torch.equal(found[0], pivot[0])
    torch.testing.assert_close(away.norm(dim=1), uniform * 0.15 * 4)  # sqrt(16) elements
    torch.testing.assert_close(
        away[1:] / away[1:].norm(dim=1, keepdim=True), z[1:].flatten(1) / z[1:].flatten(1).norm(dim=1, keepdim=True)
    )


def test_they_have_the_type_of_the_draws() -> None:
    pivot, z = draws(1, 4).float(), draws(2, 4).float()
    assert on_sphere(pivot, z, 0.9).dtype == torch.float32
    assert in_ball(pivot, z, torch.ones(2, dtype=torch.float64), 0.1).dtype == torch.float32
