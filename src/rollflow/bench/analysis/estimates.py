"""Estimates from an experiment with their intervals: means, paired differences, win rates, rewards at equal cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.analysis.results import Cells, ExperimentResults, Measure, prompt_of
from rollflow.bench.intervals import FEW, Bands, Interval, bands, interval, share
from rollflow.engine import JobRecord

RESAMPLES = 2_000
INTERVALS_NOTE = (
    f"Means over prompts, the seeds of a prompt averaged first; in brackets 95 % intervals over prompts: of {FEW} or "
    f"more a percentile bootstrap, prompts resampled whole ({RESAMPLES:,} times), of fewer Student's, and of shares "
    "Clopper and Pearson's. Fewer than 3 prompts, and few that are all equal, have none. Arms share the noise of a "
    "prompt and seed."
)
"""Note on the intervals below every table."""


class Paired(NamedTuple):
    """An estimate from pairs of jobs: two arms with the same prompt and seed.

    Args:
        interval: Mean over prompts with its interval; None if there are no pairs.
        pairs: Number of pairs.
    """

    interval: Interval | None
    pairs: int


def by_prompt(cells: Cells) -> list[float]:
    """Return the mean over seeds for each prompt."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for (prompt, _), value in cells.items():
        grouped[prompt].append(value)
    return [float(np.mean(values)) for values in grouped.values()]


def estimate(cells: Cells, *, shares: bool = False) -> Interval | None:
    """Return the mean with its interval, clustered by prompt; None if there are no values.

    Args:
        cells: Value of each (prompt, seed).
        shares: Whether the values are shares in [0, 1].
    """
    return (share if shares else interval)(by_prompt(cells), RESAMPLES) if cells else None


def difference(ours: Cells, theirs: Cells) -> Paired:
    """Return the mean of ours minus theirs over the pairs that both have."""
    pairs = {key: value - theirs[key] for key, value in ours.items() if key in theirs}
    return Paired(estimate(pairs), len(pairs))


def win_rate(ours: Cells, theirs: Cells) -> Paired:
    """Return the share of pairs in which ours is higher; a tie counts as half a win."""
    wins = {key: (1 + float(np.sign(value - theirs[key]))) / 2 for key, value in ours.items() if key in theirs}
    return Paired(estimate(wins, shares=True), len(wins))


def win_rates(results: ExperimentResults, measure: Measure) -> dict[tuple[str, str], Paired]:
    """Return the win rate of every arm against every other, by (arm, opponent)."""
    cells, rates = {arm: results.cells(measure, arm) for arm in results.arms}, {}
    for ours, theirs in combinations(cells, 2):
        rates[ours, theirs] = rate = win_rate(cells[ours], cells[theirs])
        rates[theirs, ours] = rate if rate.interval is None else rate._replace(interval=rate.interval.complement)
    return rates


class Curve(NamedTuple):
    """A mean with its pointwise 95 % band.

    Args:
        x: Positions on the horizontal axis, (m,).
        bands: Means at these positions and the ends of their intervals.
    """

    x: NDArray[np.float64]
    bands: Bands


def steps(points: Sequence[Sequence[float]], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the step function through (x, y) points, x rising, on a grid (m,); it is NaN before the first point."""
    x, y = np.array(points, float).T
    return np.concatenate([[np.nan], y])[np.searchsorted(x, grid, side="right")]


def curve(records: Sequence[JobRecord], values: Sequence[NDArray[np.float64]], x: NDArray[np.float64]) -> Curve:
    """Return the mean curve of jobs, clustered by prompt, where every job has a value.

    Args:
        records: Records of the jobs.
        values: Values of each job, (m,); NaN where it has none.
        x: Positions of the values, (m,).
    """
    grouped: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for record, value in zip(records, values, strict=True):
        grouped[prompt_of(record)].append(value)
    rows = np.array([np.mean(of_prompt, axis=0) for of_prompt in grouped.values()])
    known = ~np.isnan(rows).any(0)
    return Curve(x[known], bands(rows[:, known], RESAMPLES))


def best_so_far(results: ExperimentResults, grid: NDArray[np.float64], *, seconds: bool = False) -> dict[str, Curve]:
    """Return the curve of the best reward so far for every arm: of finished samples and of estimates on the way.

    A curve begins where each of the arm's jobs has scored a sample. It ends where the last job does, or, in NFE, at
    the arm's budget if that is later; a job that ended earlier keeps its best reward.

    Args:
        results: Results of the experiment.
        grid: Positions of the curves, (m,), in NFE or in seconds.
        seconds: Whether the grid is in seconds; each NFE of a job then counts as an equal share of its time.
    """
    by_arm = {}
    for arm in results.arms:
        records = results.of(arm)
        units = [record.seconds / max(record.nfe, 1) if seconds else 1.0 for record in records]
        ends = [unit * record.nfe for unit, record in zip(units, records, strict=True)]
        traces = [
            steps([(nfe * unit, reward) for nfe, reward in record.trace], grid)
            for unit, record in zip(units, records, strict=True)
        ]
        budget = 0 if seconds else results.budgets.get(arm, 0)
        over = grid > max(*ends, budget, 0) * (1 + 1e-9)
        if records:
            by_arm[arm] = curve(records, [np.where(over, np.nan, trace) for trace in traces], grid)
    return by_arm


def largest(results: ExperimentResults, field: str) -> float:
    """Return the largest ``nfe`` or ``seconds`` of any job."""
    return max(float(getattr(record, field)) for record in results.done)


class Shares(NamedTuple):
    """Share of an arm's NFE that each step took.

    Args:
        curve: Share by step, counted from 0.
        left_out: Number of jobs left out because they were resumed, so that their first steps are not known.
    """

    curve: Curve
    left_out: int


def budget_shares(records: Sequence[JobRecord]) -> Shares | None:
    """Return the share of the NFE of all steps, without finishing, that each step took; None if no step is recorded."""
    per_step = {record.id: _added(record.quota) for record in records}
    length = max(map(len, per_step.values()), default=0)
    complete = [record for record in records if len(per_step[record.id]) == length and sum(per_step[record.id])]
    if length == 0 or not complete:
        return None
    values = [per_step[record.id] / per_step[record.id].sum() for record in complete]
    return Shares(curve(complete, values, np.arange(length, dtype=float)), len(records) - len(complete))


def _added(quota: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Return the NFE of each step, summed over populations, which may differ in length."""
    total = np.zeros(max(map(len, quota), default=0))
    for population in quota:
        total[: len(population)] += population
    return total


def effective_sizes(records: Sequence[JobRecord]) -> Curve | None:
    """Return the mean ESS over populations after every weighting; None if no job has any."""
    recorded = [(record, [one["ess"] for one in record.diagnostics if one.get("ess")]) for record in records]
    length = max((len(sizes) for _, populations in recorded for sizes in populations), default=0)
    complete = [
        (record, populations)
        for record, populations in recorded
        if populations and all(len(sizes) == length for sizes in populations)
    ]
    if not complete:
        return None
    values = [np.mean(populations, axis=0) for _, populations in complete]
    return curve([record for record, _ in complete], values, np.arange(length, dtype=float))


def over_optimised(results: ExperimentResults) -> list[tuple[str, str, Interval, Interval]]:
    """Return the arms whose given reward is above the first arm's while a held-out one is below it.

    Both differences must exclude 0 by their intervals; a difference without an interval shows nothing.

    Returns:
        For every such arm and held-out reward: their names, the rise of the given reward and the fall of the other.
    """
    [reference, *others], over = results.arms, []
    for arm in others:
        for judge in results.held_out:
            up, down = (
                difference(*_both(results, measure, arm, reference)).interval for measure in (results.given, judge)
            )
            if up is not None and down is not None and up.low > 0 > down.high:
                over.append((arm, judge.name, up, down))
    return over


def _both(results: ExperimentResults, measure: Measure, arm: str, other: str) -> tuple[Cells, Cells]:
    return results.cells(measure, arm), results.cells(measure, other)
