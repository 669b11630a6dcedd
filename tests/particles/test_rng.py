"""Noise: a function of what it is for, and standard normal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rollflow.particles import rng
from rollflow.particles.rng import Noise

NOISE = Noise(seed=7, population=1, shape=(3,), dtype=torch.float64)
labels = st.tuples(st.integers(0, 30), st.integers(0, 1000), st.integers(0, 1000))


@given(st.lists(labels, min_size=1, max_size=8, unique=True), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_a_draw_does_not_depend_on_the_order_of_draws(wanted: list[tuple[int, int, int]], random: Random) -> None:
    first = {label: NOISE.normal(*label) for label in wanted}
    again = {label: NOISE.normal(*label) for label in random.sample(wanted, len(wanted))}
    assert all(torch.equal(first[label], again[label]) for label in wanted)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8), st.integers(0, 20))
def test_normals_are_normal_row_by_row(pairs: list[tuple[int, int]], step: int) -> None:
    batch = NOISE.normals(step, [row for row, _ in pairs], [draw for _, draw in pairs])
    for got, (row, draw) in zip(batch, pairs, strict=True):
        assert torch.equal(got, NOISE.normal(step, row, draw))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_threads_draw_what_one_draws(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def pool(threads: int) -> ThreadPoolExecutor:
        started.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(rng, "ThreadPoolExecutor", pool)
    noise = replace(NOISE, shape=(rng.MANY // 4, 1), dtype=dtype)
    rows, draws = [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]
    together = noise.normals(8, rows, draws)
    assert started == [3]
    assert together.dtype == dtype
    assert all(torch.equal(got, noise.normal(8, *pair)) for got, *pair in zip(together, rows, draws, strict=True))


@given(labels, labels)
def test_different_labels_draw_different_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    """Every value differs, so that no two labels share a counter block; permuted labels are among the examples."""
    for a, b in ((one, other), (one, one[::-1]), (one, (one[0], one[2], one[1]))):
        if a != b:
            assert not (NOISE.normal(*a) == NOISE.normal(*b)).any()


def test_every_coordinate_matters() -> None:
    """Neighbours in seed, population, step, row and draw, and the ends of the seed's range, are all distinct."""
    draws = [NOISE.normal(*label) for label in ((2, 3, 4), (3, 3, 4), (2, 4, 4), (2, 3, 5), (0, 0, 0))]
    draws += [replace(NOISE, population=2).normal(2, 3, 4)]
    draws += [replace(NOISE, seed=seed).normal(2, 3, 4) for seed in (0, 8, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1)]
    assert len({float(value) for draw in draws for value in draw}) == 3 * len(draws)


def test_long_draws_do_not_overlap() -> None:
    """A draw of many numbers never runs into its neighbours', whatever the coordinate that separates them."""
    noise = replace(NOISE, shape=(5000,))
    values = torch.cat([noise.normal(*label) for label in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))])
    assert len(values.unique()) == len(values)  # type: ignore[no-untyped-call]


def test_float32_is_the_cast_of_float64() -> None:
    single = replace(NOISE, dtype=torch.float32, shape=(4, 5))
    assert torch.equal(single.normal(1, 2, 3), replace(NOISE, shape=(4, 5)).normal(1, 2, 3).to(torch.float32))
    assert single.normal(1, 2, 3).dtype == torch.float32


def test_draws_are_standard_normal_and_uncorrelated() -> None:
    """KS over single-number draws along each coordinate, and no correlation between neighbouring counters."""
    noise, n = replace(NOISE, shape=(1,)), 1500
    along = {
        "step": [float(noise.normal(i, 0, 0)) for i in range(n)],
        "row": [float(noise.normal(0, i, 0)) for i in range(n)],
        "draw": [float(noise.normal(0, 0, i)) for i in range(n)],
        "seed": [float(replace(noise, seed=i).normal(0, 0, 0)) for i in range(n)],
        "population": [float(replace(noise, population=i).normal(0, 0, 0)) for i in range(n)],
    }
    for name, values in along.items():
        assert stats.kstest(values, "norm").pvalue > 1e-3, name
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / n**0.5, name
    pooled = np.array(list(along.values()))
    assert abs(pooled.mean()) < 4 / pooled.size**0.5
    assert abs(pooled.var() - 1) < 4 * (2 / pooled.size) ** 0.5
    assert np.abs(np.corrcoef(pooled) - np.eye(5)).max() < 4.5 / n**0.5
