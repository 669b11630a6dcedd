"""Means with intervals, and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.errors import RollflowError


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def percent(self) -> str:
        """The same of a share."""
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def bootstrap(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of independent values (one a prompt) with its percentile bootstrap interval.

    Args:
        values: (n,); what was measured several times on one prompt is averaged first.
    """
    array = np.asarray(values, float)
    rows = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[rows].mean(1), [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho, ties averaged; None where either is constant, up to rounding, and nothing can be said."""
    try:
        from scipy.stats import spearmanr
    except ImportError:
        raise RollflowError("rank correlations need scipy; pip install 'rollflow[bench]'") from None
    if np.allclose(a, a[0], atol=1e-12) or np.allclose(b, b[0], atol=1e-12):
        return None
    return float(spearmanr(a, b).statistic)
