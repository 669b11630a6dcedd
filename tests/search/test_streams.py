"""Choices among the rows of each stream."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollflow.particles.rng import Noise
from rollflow.search.streams import best_of_each, copied, labels, softmax_of_each

LARGEST_DRAW = 1 - 2.0**-53
rewards = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6)


def test_rows_lie_stream_by_stream() -> None:
    assert labels(3, 2) == ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
    assert copied(3, 2).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_best_is_the_first_of_equals() -> None:
    reward = torch.tensor([1.0, 3.0, 3.0, 2.0, 2.0, 1.0], dtype=torch.float64)
    assert best_of_each(reward, 2).tolist() == [1, 3]
    assert best_of_each(reward, 6).tolist() == list(range(6))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 20.0])
def test_frequencies_are_those_of_the_softmax(temperature: float) -> None:
    """Within 4 standard errors, over streams that all hold the same four rewards."""
    reward, n = torch.tensor([0.5, 2.0, -1.0, 1.8], dtype=torch.float64), 4000
    uniform = Noise(3, 0, (1,), torch.float64).uniform(7, n)
    rows = softmax_of_each(reward.repeat(n), uniform, temperature)
    assert torch.equal(rows // 4, torch.arange(n))
    p = torch.softmax(reward / temperature, 0)
    share = torch.bincount(rows % 4, minlength=4) / n
    assert (share - p).abs().le(4 * (p * (1 - p) / n).sqrt()).all()


@given(rewards, st.floats(0, LARGEST_DRAW))
def test_the_limit_of_zero_temperature_is_the_best(values: list[float], u: float) -> None:
    """But for equals, of which either may be taken."""
    reward, uniform = torch.tensor(values, dtype=torch.float64), torch.tensor([u], dtype=torch.float64)
    for temperature in (5e-324, 1e-300):
        (row,) = softmax_of_each(reward, uniform, temperature).tolist()
        assert values[row] == max(values) == values[int(best_of_each(reward, 1))]


@given(rewards, st.floats(0, LARGEST_DRAW), st.sampled_from([1e-4, 1.0, 1e4, 1e300]))
def test_one_that_cannot_be_is_never_picked(values: list[float], u: float, temperature: float) -> None:
    """Whatever the draw, its ends among them, the row exists and has a probability above 0."""
    reward = torch.tensor(values, dtype=torch.float64)
    p = torch.softmax((reward - reward.max()) / temperature, 0)
    for draw in (0.0, u, LARGEST_DRAW):
        (row,) = softmax_of_each(reward, torch.tensor([draw], dtype=torch.float64), temperature).tolist()
        assert p[row] > 0


def test_streams_choose_on_their_own() -> None:
    """The same rewards twice: what the second picks depends on its own draw alone."""
    reward = torch.tensor([1.0, 2.0, 1.0, 2.0], dtype=torch.float64)
    picked = [softmax_of_each(reward, torch.tensor([a, b]).double(), 1.0).tolist() for a in (0, 0.9) for b in (0, 0.9)]
    assert picked == [[0, 2], [0, 3], [1, 2], [1, 3]]
