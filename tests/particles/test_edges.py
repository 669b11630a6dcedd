"""Noise drawn by threads, and resampling where two numbers are exactly equal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rollflow.errors import UnknownName
from rollflow.particles import rng
from rollflow.particles.resampling import RESAMPLING, SSP, Multinomial, Residual, Stratified
from rollflow.particles.rng import Noise, global_state_kept


class Crew:
    """Who draws which rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        self.pools: list[int] = []
        self.shares: list[list[int]] = []
        fill = Noise._fill

        def pool(count: int) -> ThreadPoolExecutor:
            self.pools.append(count)
            return ThreadPoolExecutor(count)

        def watched(noise: Noise, flat: Any, step: int, rows: Sequence[int], draws: Sequence[int]) -> None:
            self.shares.append(list(rows))
            fill(noise, flat, step, rows, draws)

        monkeypatch.setattr(rng, "MANY", 60)
        monkeypatch.setattr(rng, "ThreadPoolExecutor", pool)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(Noise, "_fill", watched)


@pytest.mark.parametrize(
    ("threads", "rows", "size", "shares"),
    [
        (3, 5, 12, [[0], [1, 2], [3, 4]]),
        (3, 5, 11, [[0, 1, 2, 3, 4]]),  # 55 numbers are not many
        (1, 5, 12, [[0, 1, 2, 3, 4]]),
        (2, 5, 12, [[0, 1], [2, 3, 4]]),
        (4, 2, 30, [[0], [1]]),
        (4, 1, 60, [[0]]),
    ],
)
def test_threads_share_the_rows_where_there_are_many(
    monkeypatch: pytest.MonkeyPatch, threads: int, rows: int, size: int, shares: list[list[int]]
) -> None:
    """As many threads as torch has, but no more than rows; none for few numbers."""
    noise = Noise(7, 1, (size,), torch.float64)
    expected = torch.stack([noise.normal(3, row, 2) for row in range(rows)])
    crew = Crew(monkeypatch, threads)
    assert torch.equal(noise.normals(3, range(rows), [2] * rows), expected)
    assert sorted(crew.shares) == shares
    assert crew.pools == ([len(shares)] if len(shares) > 1 else [])


def test_a_thread_that_fails_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    Crew(monkeypatch, 2)
    with pytest.raises(OverflowError):
        Noise(7, 1, (60,), torch.float64).normals(3, [0, 1], [2, -1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_no_rows(dtype: torch.dtype) -> None:
    drawn = replace(Noise(7, 1, (2, 3), dtype)).normals(0, [], [])
    assert (drawn.shape, drawn.dtype) == ((0, 2, 3), dtype)


def test_global_generators_are_left_as_they_were() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    with global_state_kept():
        drawn = (random.random(), np.random.random(), float(torch.rand(())))
    assert (random.random(), np.random.random(), float(torch.rand(()))) == drawn


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_ties_of_ssp() -> None:
    """A particle that is whole already wins nothing, whatever the uniform; at equality the second has the copy."""
    assert SSP()(tensor(0.5, 0.25, 0.25), tensor(0.0, 0.0), 2).tolist() == [0, 1]
    assert SSP()(tensor(0.5, 0.5), tensor(0.5), 1).tolist() == [1]
    assert SSP()(tensor(0.5, 0.5), tensor(np.nextafter(0.5, 0)), 1).tolist() == [0]


def test_points_on_the_border_belong_to_the_next() -> None:
    assert Multinomial()(tensor(0.25, 0.5, 0.25), tensor(0.25, 0.75, 0.0), 3).tolist() == [1, 2, 0]
    assert Stratified()(tensor(0.5, 0.5), tensor(0.0, 0.0), 2).tolist() == [0, 1]


def test_copies_just_below_a_whole_number_are_whole() -> None:
    """49 (1 / 49) < 1 in floating point; what is 1e-6 below is not whole."""
    equal = torch.full((49,), 1 / 49, dtype=torch.float64)
    assert Residual()(equal, torch.zeros(49, dtype=torch.float64), 49).tolist() == list(range(49))
    below = tensor(0.5 - 1e-6, 0.5 + 1e-6)
    assert Residual()(below, tensor(0.99999, 0.0), 2).tolist() == [1, 0]
    assert Residual()(below, tensor(0.999999, 0.0), 2).tolist() == [1, 1]


@pytest.mark.parametrize("total", [1 + 1e-8, 1 - 1e-8])
def test_weights_that_do_not_sum_to_1_are_refused(total: float) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Multinomial()(tensor(0.5 * total, 0.5 * total), tensor(0.1), 1)
    assert Multinomial()(tensor(0.5, 0.5 + 1e-10), tensor(0.1), 1).tolist() == [0]


def test_an_unknown_scheme_is_called_so() -> None:
    with pytest.raises(UnknownName, match=r"^unknown resampling scheme 'systematik'"):
        RESAMPLING.resolve("systematik")
