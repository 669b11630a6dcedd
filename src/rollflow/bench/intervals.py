"""Means with intervals, and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.errors import RollflowError

FEW = 20
"""Independent values below which a percentile bootstrap is far too narrow: of two it spans the two, and covers half."""


class Interval(NamedTuple):
    """A mean and its 95 % interval.

    Args:
        mean: Of the values.
        low: Lower end; as the upper one NaN where the values tell of no spread, being too few or, few, all equal ...
        high: ... and upper end.
        n: How many independent values there are.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return self.text(f"{self.mean:.2f}", f"{self.low:.2f}, {self.high:.2f}")

    def percent(self) -> str:
        """The same of a share."""
        return self.text(f"{100 * self.mean:.1f} %", f"{100 * self.low:.1f}, {100 * self.high:.1f}")

    def text(self, mean: str, ends: str) -> str:
        """The text of a mean with its ends, or with why there are none."""
        return f"{mean} ({self.lacking})" if self.lacking else f"{mean} [{ends}]"

    @property
    def complement(self) -> Interval:
        """Of a share, that of the rest."""
        return Interval(1 - self.mean, 1 - self.high, 1 - self.low, self.n)

    @property
    def lacking(self) -> str:
        """Why there are no ends; empty where there are."""
        if not math.isnan(self.low):
            return ""
        return f"n = {self.n}" if self.n < 3 else f"all {self.n} equal"


class Bands(NamedTuple):
    """Means of m columns and their pointwise 95 % bands, each (m,), of n rows; NaN as of ``Interval``."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: int


def bootstrap(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of many independent values (one a prompt) with its percentile bootstrap interval.

    Args:
        values: (n,); what was measured several times on one prompt is averaged first. For fewer than ``FEW`` see
            ``interval``.
    """
    array = np.asarray(values, float)
    if len(array) == 1:
        return Interval(float(array[0]), math.nan, math.nan, 1)
    rows = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[rows].mean(1), [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high), len(array))


def interval(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean with its interval, whatever the number of values.

    Of ``FEW`` or more it is ``bootstrap``; of fewer, Student's mean ± t_{0.975, n - 1} s / sqrt(n) (Student 1908). Of
    fewer than 3, and of few that are all equal, there is none: values that happen to agree do not bound those to come.

    Args:
        values: (n,), independent.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    if len(values) >= FEW:
        return bootstrap(values, resamples, seed)
    mean, low, high, n = bands(np.asarray(values, float)[:, None])
    return Interval(float(mean[0]), float(low[0]), float(high[0]), n)


def share(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """The same of values in [0, 1].

    Of fewer than ``FEW`` it is the interval of n draws of a coin (Clopper & Pearson 1934, by quantiles of the beta
    distribution), exact where all values are 0 or 1; a value between (seeds that differ, a tie) counts as its part of
    a success, which spreads less, so that the interval is then too wide rather than too narrow. So it is, of any
    number, where all are 1, or all 0.
    """
    n, won = len(values), float(np.sum(values))
    if n < 3:
        return Interval(won / n, math.nan, math.nan, n)
    if n >= FEW and 0 < won < n:
        return bootstrap(values, resamples, seed)
    special = _special()
    low = 0.0 if won == 0 else float(special.betaincinv(won, n - won + 1, 0.025))
    high = 1.0 if won == n else float(special.betaincinv(won + 1, n - won, 0.975))
    return Interval(won / n, low, high, n)


def bands(rows: NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Bands:
    """Means of the columns, each with what ``interval`` gives it; for a bootstrap whole rows are resampled together.

    Args:
        rows: (n, m), one row a prompt.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    n, mean = len(rows), rows.mean(0)
    if n < 3:
        return Bands(mean, np.full_like(mean, math.nan), np.full_like(mean, math.nan), n)
    if n < FEW:
        half = float(_special().stdtrit(n - 1, 0.975)) * rows.std(0, ddof=1) / math.sqrt(n)
        equal = np.ptp(rows, 0) <= 1e-12 * np.abs(rows).max(0)
        half = np.where(equal, math.nan, half)
        return Bands(mean, mean - half, mean + half, n)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.percentile(weights @ rows / n, [2.5, 97.5], axis=0)
    return Bands(mean, low, high, n)


def _special() -> Any:
    """Quantiles of distributions."""
    try:
        from scipy import special
    except ImportError:
        raise RollflowError("intervals of few values need scipy; pip install 'rollflow[bench]'") from None
    return special


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho, ties averaged; None where either is constant, up to rounding, and nothing can be said."""
    try:
        from scipy.stats import spearmanr
    except ImportError:
        raise RollflowError("rank correlations need scipy; pip install 'rollflow[bench]'") from None
    if np.allclose(a, a[0], atol=1e-12) or np.allclose(b, b[0], atol=1e-12):
        return None
    return float(spearmanr(a, b).statistic)
