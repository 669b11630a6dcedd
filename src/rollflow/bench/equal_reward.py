"""The budget at which a search reaches a given mean, interpolated between the budgets that were run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.intervals import FEW, Interval

RESAMPLES = 2_000
EQUAL_REWARD_NOTE = (
    "The smallest budget whose mean reaches that of the reference, interpolated linearly in the logarithm of the "
    f"budget between those run; in brackets a 95 % percentile bootstrap interval over {FEW} or more prompts "
    f"({RESAMPLES:,} times), which are resampled together with the reference. <: the smallest budget run is above the "
    "reference already; >: no budget run reaches it."
)
"""Note on ``needed`` below a table."""


def nfe_for(budgets: Sequence[int], means: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest budgets whose means are the targets, interpolated linearly in the logarithm of the budget.

    Args:
        budgets: B budgets in NFE, rising.
        means: (B, n) means at each budget.
        target: (n,) means to reach.

    Returns:
        (n,) budgets; 0 where the first budget's mean is above the target, infinity where none reaches it.
    """
    columns, nfe = np.arange(len(target)), np.array(budgets, float)
    rounding = 1e-12 * np.maximum(1.0, np.abs(target))
    reached = means >= target - rounding
    after = reached.argmax(0)
    before = np.maximum(after - 1, 0)
    low, high = means[before, columns], means[after, columns]
    rise = np.where(high > low, high - low, 1.0)
    crossing = nfe[before] * (nfe[after] / nfe[before]) ** np.clip((target - low) / rise, 0.0, 1.0)
    first = np.where(means[0] <= target + rounding, nfe[0], 0.0)
    found: NDArray[np.float64] = np.where(reached.any(0), np.where(after == 0, first, crossing), math.inf)
    return found


def needed(values: Mapping[int, NDArray[np.float64]], target: NDArray[np.float64], seed: int = 0) -> Interval | None:
    """Return the NFE that a search needs for a mean, with a bootstrap interval over prompts; None without budgets.

    Args:
        values: (P,) values of all prompts, by budget.
        target: (P,) values of the reference, which are resampled together with the search's.
        seed: Seed of the bootstrap.
    """
    if not values:
        return None
    budgets, prompts = sorted(values), len(target)
    table = np.stack([*(values[nfe] for nfe in budgets), target])
    rows = np.random.default_rng(seed).integers(prompts, size=(RESAMPLES, prompts))
    means = np.concatenate([table.mean(1)[:, None], table[:, rows].mean(2)], 1)
    value, *drawn = nfe_for(budgets, means[:-1], means[-1]).tolist()
    low, high = np.sort(drawn)[[round(0.025 * (RESAMPLES - 1)), round(0.975 * (RESAMPLES - 1))]]
    return Interval(value, float(low), float(high), prompts)


def needed_text(value: Interval | None, budgets: Sequence[int]) -> str:
    """Return what ``needed`` found for a search that was run with some budgets, rising, as text."""
    if value is None:
        return "-"
    mean, low, high = (
        f"<{budgets[0]}" if nfe == 0 else f">{budgets[-1]}" if math.isinf(nfe) else f"{nfe:.0f}" for nfe in value[:3]
    )
    return f"{mean} [{low}, {high}]" if value.n >= FEW else f"{mean} (n = {value.n})"
