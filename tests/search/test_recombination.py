"""Recombination of siblings' noises."""

from __future__ import annotations

import math

import pytest
import torch

from rollflow.search.recombination import LEAST, recombined


def test_it_is_the_formula() -> None:
    """sqrt(d) w / |w| with w the noises weighted by their rewards less the mean, by hand for d = 2."""
    noises = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    reward = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)  # less the mean: 2, -1, -1
    w = torch.tensor([1.0, -2.0])
    found = recombined(noises, reward)
    assert found is not None
    assert found.shape == (1, 2)
    assert found.dtype == noises.dtype
    torch.testing.assert_close(found[0], math.sqrt(2) * w / math.sqrt(5))


def test_it_finds_the_slope_of_a_linear_reward() -> None:
    """r = <a, z>: z* is nearly along a, so that it gains about sqrt(M) slopes, far more than the best of M."""
    generator = torch.Generator().manual_seed(0)
    a, m, d = torch.randn(400, generator=generator, dtype=torch.float64), 16, 400
    a /= a.norm()
    gains, best = [], []
    for _ in range(50):
        z = torch.randn(m, d, generator=generator, dtype=torch.float64)
        found = recombined(z, z @ a)
        assert found is not None
        gains.append(float(found[0] @ a))
        best.append(float((z @ a).max()))
    mean, error = torch.tensor(gains).mean(), torch.tensor(gains).std() / math.sqrt(50)
    assert abs(mean - math.sqrt(m - 1)) < 3 * error + 0.05 * math.sqrt(m)  # |w|^2 has m - 1 terms of size d
    assert mean > 1.8 * torch.tensor(best).mean()


def test_its_norm_is_that_of_a_draw() -> None:
    z = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = recombined(z, torch.arange(5.0, dtype=torch.float64))
    assert found is not None
    assert float(found.norm()) == pytest.approx(math.sqrt(48), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e300])
def test_the_scale_and_offset_of_the_reward_do_not_matter(scale: float) -> None:
    z = torch.randn(6, 7, generator=torch.Generator().manual_seed(2))
    reward = torch.tensor([0.0, 1.0, 5.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    plain, scaled = recombined(z, reward), recombined(z, reward * scale)
    assert plain is not None
    assert scaled is not None
    torch.testing.assert_close(scaled, plain)


def test_where_rewards_tell_no_direction_there_is_none() -> None:
    """Too few siblings with a finite reward, or equal rewards."""
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    low = -math.inf
    assert recombined(z, torch.full((5,), 0.25, dtype=torch.float64)) is None
    assert recombined(z, torch.tensor([0.5, low, low, low, 1.0], dtype=torch.float64)) is None
    assert recombined(z[: LEAST - 1], torch.arange(LEAST - 1.0, dtype=torch.float64)) is None
    assert recombined(torch.zeros(5, 2), torch.arange(5.0, dtype=torch.float64)) is None


def test_samples_that_must_not_be_chosen_are_left_out() -> None:
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(4))
    reward = torch.tensor([0.5, 1.0, -math.inf, 2.0, 0.0], dtype=torch.float64)
    finite = torch.tensor([0, 1, 3, 4])
    found, expected = recombined(z, reward), recombined(z[finite], reward[finite])
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)


def test_children_count_by_how_they_differ_from_their_siblings() -> None:
    """Two families whose levels differ: only what is better than its own mean has a positive weight."""
    noises = torch.eye(4)
    reward = torch.tensor([10.0, 8.0, 0.5, -0.5], dtype=torch.float64)  # less the means of pairs: 1, -1, .5, -.5
    found = recombined(noises, reward, torch.tensor([0, 0, 1, 1]))
    assert found is not None
    torch.testing.assert_close(found[0], 2 * torch.tensor([1.0, -1.0, 0.5, -0.5]) / math.sqrt(2.5))
    alike = torch.tensor([0.1, 0.1, 0.1, 7.0], dtype=torch.float64)
    assert recombined(noises, alike, torch.tensor([0, 0, 0, 1])) is None
