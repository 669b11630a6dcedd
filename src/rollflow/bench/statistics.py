"""Means with intervals, and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.errors import RollflowError


class Interval(NamedTuple):
    """A mean and its 95 % interval; both ends are NaN where one value alone tells of no spread."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.told(f"{self.mean:.2f}", f"{self.low:.2f}, {self.high:.2f}")

    def percent(self) -> str:
        """The same of a share."""
        return self.told(f"{100 * self.mean:.1f} %", f"{100 * self.low:.1f}, {100 * self.high:.1f}")

    def told(self, mean: str, ends: str) -> str:
        """The text of a mean with its ends, or with what stands for them where there are none."""
        return f"{mean} (n = 1)" if math.isnan(self.low) else f"{mean} [{ends}]"


class Bands(NamedTuple):
    """Means of m columns and their pointwise 95 % bands, each (m,); NaN as of ``Interval``."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def bootstrap(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of independent values (one a prompt) with its percentile bootstrap interval.

    Args:
        values: (n,); what was measured several times on one prompt is averaged first.
    """
    array = np.asarray(values, float)
    if len(array) == 1:
        return Interval(float(array[0]), math.nan, math.nan)
    rows = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[rows].mean(1), [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high))


def share(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """The same of values in [0, 1].

    Where all are 1, or all 0, a bootstrap would be certain; the end is then 0.025^(1/n), or 1 less that, the exact one
    of n draws (Clopper & Pearson 1934).
    """
    found = bootstrap(values, resamples, seed)
    end = 0.025 ** (1 / len(values))
    if len(values) > 1 and found.low == found.high:
        found = found._replace(low=end) if found.mean == 1 else found
        found = found._replace(high=1 - end) if found.mean == 0 else found
    return found


def bands(rows: NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Bands:
    """Means of the columns, whole rows resampled together.

    Args:
        rows: (n, m), one row a prompt.
    """
    mean = rows.mean(0)
    if len(rows) == 1:
        return Bands(mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan))
    weights = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    low, high = np.percentile(weights @ rows / len(rows), [2.5, 97.5], axis=0)
    return Bands(mean, low, high)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho, ties averaged; None where either is constant, up to rounding, and nothing can be said."""
    try:
        from scipy.stats import spearmanr
    except ImportError:
        raise RollflowError("rank correlations need scipy; pip install 'rollflow[bench]'") from None
    if np.allclose(a, a[0], atol=1e-12) or np.allclose(b, b[0], atol=1e-12):
        return None
    return float(spearmanr(a, b).statistic)
