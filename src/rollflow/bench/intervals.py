"""Confidence intervals of means and shares, and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.extras import requiring

FEW = 20
"""Number of values below which no percentile bootstrap is used, since it is far too narrow for few.

For two values it reaches from one to the other, and covers the mean in half of all cases.
"""


class Interval(NamedTuple):
    """A mean and its 95 % interval.

    Args:
        mean: Mean of the values.
        low: Lower end of the interval; NaN if there is no interval, since there are fewer than 3 values, or few values
            that are all equal.
        high: Upper end of the interval; NaN if ``low`` is.
        n: Number of independent values.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return self.text(f"{self.mean:.2f}", f"{self.low:.2f}, {self.high:.2f}")

    def percent(self) -> str:
        """Return the interval of a share as text in percent."""
        return self.text(f"{100 * self.mean:.1f} %", f"{100 * self.low:.1f}, {100 * self.high:.1f}")

    def text(self, mean: str, ends: str) -> str:
        """Return a mean with the ends of its interval, or with the reason why it has none, as text."""
        return f"{mean} ({self.lacking})" if self.lacking else f"{mean} [{ends}]"

    @property
    def complement(self) -> Interval:
        """Interval of one minus a share."""
        return Interval(1 - self.mean, 1 - self.high, 1 - self.low, self.n)

    @property
    def lacking(self) -> str:
        """Reason why there is no interval; empty if there is one."""
        if not math.isnan(self.low):
            return ""
        return f"n = {self.n}" if self.n < 3 else f"all {self.n} equal"


class Bands(NamedTuple):
    """Means of m columns with their pointwise 95 % intervals; the ends are NaN if there is no interval.

    Args:
        mean: Means of the columns, (m,).
        low: Lower ends of the intervals, (m,).
        high: Upper ends of the intervals, (m,).
        n: Number of independent rows.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: int


def bootstrap(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of many independent values with its percentile bootstrap interval.

    Args:
        values: Independent values, (n,): one per prompt, averaged over its seeds. For fewer than ``FEW`` use
            ``interval``.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    array = np.asarray(values, float)
    if len(array) == 1:
        return Interval(float(array[0]), math.nan, math.nan, 1)
    rows = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[rows].mean(1), [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high), len(array))


def interval(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of any number of values with its interval.

    For ``FEW`` or more values it is ``bootstrap``; for fewer, Student's mean ± t_{0.975, n - 1} s / sqrt(n) (Student
    1908). For fewer than 3, and for few that are all equal, there is no interval: values that happen to agree say
    nothing about those to come.

    Args:
        values: Independent values, (n,).
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    if len(values) >= FEW:
        return bootstrap(values, resamples, seed)
    mean, low, high, n = bands(np.asarray(values, float)[:, None])
    return Interval(float(mean[0]), float(low[0]), float(high[0]), n)


def share(values: Sequence[float] | NDArray[np.float64], resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of values in [0, 1] with its interval.

    For fewer than ``FEW`` values it is the binomial interval of n trials (Clopper & Pearson 1934, by quantiles of the
    beta distribution), exact if all values are 0 or 1. A value in between (seeds that differ, a tie) counts as a
    fraction of a success; such values vary less, so that the interval is too wide rather than too narrow. The binomial
    interval is also used for any number of values that are all 1 or all 0.

    Args:
        values: Independent values in [0, 1], (n,).
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
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
    """Return the means of columns, each with its interval as in ``interval``; a bootstrap resamples whole rows.

    Args:
        rows: Independent rows, (n, m), one per prompt.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.
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


def ratio(
    above: NDArray[np.float64], below: NDArray[np.float64], resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """Ratio of two means over the same prompts with its interval; None if the lower mean is 0.

    Of ``FEW`` or more values it is a percentile bootstrap of the pairs; of fewer, the interval of the mean of the
    ratio's linear approximation, by the delta method and Student's t.

    Args:
        above: (n,) values of the numerator.
        below: (n,) values of the denominator, not negative.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    n, whole = len(above), float(below.mean())
    if whole == 0:
        return None
    value = float(above.mean()) / whole
    if n < FEW:
        spread = interval((above - value * below) / whole)
        return Interval(value, value + spread.low, value + spread.high, n)
    rows = np.random.default_rng(seed).integers(n, size=(resamples, n))
    means = above[rows].mean(1), below[rows].mean(1)
    low, high = np.percentile(means[0][means[1] > 0] / means[1][means[1] > 0], [2.5, 97.5])
    return Interval(value, float(low), float(high), n)


def _special() -> Any:
    """Import scipy's quantiles of distributions."""
    with requiring("a confidence interval of few values", "bench"):
        from scipy import special
    return special


def constant(values: Sequence[float] | NDArray[np.float64]) -> bool:
    """Return whether values are all equal up to rounding."""
    return bool(np.allclose(values, values[0], atol=1e-12))


def rank_correlation(
    a: Sequence[float] | NDArray[np.float64], b: Sequence[float] | NDArray[np.float64]
) -> float | None:
    """Return Spearman's rho, with ties averaged; None if either sequence is constant up to rounding."""
    with requiring("a rank correlation", "bench"):
        from scipy.stats import spearmanr
    if constant(a) or constant(b):
        return None
    return float(spearmanr(a, b).statistic)
