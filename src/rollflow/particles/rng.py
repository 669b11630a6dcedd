"""Counter-based noise: each draw depends on its label alone, not on any other draw."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

MANY = 2**18
"""Number of draws from which starting threads pays off: drawing then takes milliseconds."""


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Restore the global generators of Python, NumPy and torch after the block."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@dataclass(frozen=True)
class Noise:
    """Standard normal draws of one population, by Philox (Salmon et al. 2011) with the key (seed, population).

    Args:
        seed: Seed of the job, 0 <= seed < 2^64.
        population: Index of the population within the job.
        shape: Shape of one draw.
        dtype: Type of the result; numbers are drawn in float64, so that they are the same in every dtype.
    """

    seed: int
    population: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def normal(self, step: int, row: int, draw: int) -> Float[Tensor, "..."]:
        """Return draw number ``draw`` of row ``row`` at step ``step``, of shape ``shape``."""
        key = np.array([self.seed, self.population], np.uint64)  # a list is cast by way of float64
        philox = np.random.Philox(key=key, counter=[0, draw, row, step])
        flat = np.random.Generator(philox).standard_normal(math.prod(self.shape))
        return torch.from_numpy(flat).reshape(self.shape).to(self.dtype)

    def uniform(self, step: int, count: int) -> Float64[Tensor, " {count}"]:
        """Return uniform draws in [0, 1) for the decisions of step ``step``, such as resampling.

        Their counters are those of a row number that no particle has.
        """
        key = np.array([self.seed, self.population], np.uint64)
        philox = np.random.Philox(key=key, counter=np.array([0, 0, 2**64 - 1, step], np.uint64))
        return torch.from_numpy(np.random.Generator(philox).random(count))

    def normals(self, step: int, rows: Sequence[int], draws: Sequence[int]) -> Float[Tensor, "B ..."]:
        """Return one draw for each (row, draw) pair, stacked: (len(rows), *shape).

        A large number of draws is split between the threads that torch uses, which changes none of them.
        """
        kept = np.float32 if self.dtype == torch.float32 else np.float64
        flat = np.empty((len(rows), math.prod(self.shape)), kept)
        threads = min(len(rows), torch.get_num_threads())
        if threads == 1 or flat.size < MANY:
            self._fill(flat, step, rows, draws)
        else:
            bounds = [len(rows) * i // threads for i in range(threads + 1)]
            with ThreadPoolExecutor(threads) as pool:
                shares = [pool.submit(self._fill, flat[a:b], step, rows[a:b], draws[a:b]) for a, b in pairwise(bounds)]
                for share in shares:
                    share.result()
        return torch.from_numpy(flat).reshape(len(rows), *self.shape).to(self.dtype)

    def _fill(self, flat: np.ndarray[Any, Any], step: int, rows: Sequence[int], draws: Sequence[int]) -> None:
        """Write one draw for each (row, draw) pair into the rows of ``flat``, by way of float64."""
        key = np.array([self.seed, self.population], np.uint64)
        philox = np.random.Philox(key=key, counter=[0, 0, 0, step])
        generator, state, drawn = np.random.Generator(philox), philox.state, np.empty(flat.shape[1])
        for values, row, draw in zip(flat, rows, draws, strict=True):
            state["state"]["counter"] = np.array([0, draw, row, step], np.uint64)
            philox.state = state  # several times faster than a generator for each row
            generator.standard_normal(out=drawn)
            values[:] = drawn
