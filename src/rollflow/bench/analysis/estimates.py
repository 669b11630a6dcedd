"""Numbers of an experiment, each with its interval: means, paired differences, win rates, rewards at equal cost."""

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
"""What a reader of any table must know."""


class Paired(NamedTuple):
    """A number from pairs: jobs of two arms with the same prompt and seed.

    Args:
        interval: None where there are no pairs.
        pairs: How many.
    """

    interval: Interval | None
    pairs: int


def by_prompt(cells: Cells) -> list[float]:
    """One number a prompt: the mean over its seeds."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for (prompt, _), value in cells.items():
        grouped[prompt].append(value)
    return [float(np.mean(values)) for values in grouped.values()]


def estimate(cells: Cells, *, shares: bool = False) -> Interval | None:
    """Mean with its interval, clustered by prompt; None of nothing.

    Args:
        cells: A number for each (prompt, seed).
        shares: Whether all lie in [0, 1].
    """
    return (share if shares else interval)(by_prompt(cells), RESAMPLES) if cells else None


def difference(ours: Cells, theirs: Cells) -> Paired:
    """Ours minus theirs, over the pairs that both have."""
    pairs = {key: value - theirs[key] for key, value in ours.items() if key in theirs}
    return Paired(estimate(pairs), len(pairs))


def win_rate(ours: Cells, theirs: Cells) -> Paired:
    """The share of pairs in which ours is higher; a tie is half a win."""
    wins = {key: (1 + float(np.sign(value - theirs[key]))) / 2 for key, value in ours.items() if key in theirs}
    return Paired(estimate(wins, shares=True), len(wins))


def win_rates(results: ExperimentResults, measure: Measure) -> dict[tuple[str, str], Paired]:
    """Of every arm against every other, by both names; what one wins the other loses."""
    cells, found = {arm: results.cells(measure, arm) for arm in results.arms}, {}
    for ours, theirs in combinations(cells, 2):
        found[ours, theirs] = won = win_rate(cells[ours], cells[theirs])
        found[theirs, ours] = won if won.interval is None else won._replace(interval=won.interval.complement)
    return found


class Curve(NamedTuple):
    """A mean against x with its pointwise 95 % band, each (m,)."""

    x: NDArray[np.float64]
    bands: Bands


def steps(points: Sequence[Sequence[float]], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """The step function through (x, y) points, x rising, on a grid (m,): the last y at or before; NaN before any."""
    x, y = np.array(points, float).T
    return np.concatenate([[np.nan], y])[np.searchsorted(x, grid, side="right")]


def curve(records: Sequence[JobRecord], values: Sequence[NDArray[np.float64]], x: NDArray[np.float64]) -> Curve:
    """Mean of (m,) values of jobs, clustered by prompt, at those x (m,) where every job has one."""
    grouped: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for record, value in zip(records, values, strict=True):
        grouped[prompt_of(record)].append(value)
    rows = np.array([np.mean(some, axis=0) for some in grouped.values()])
    known = ~np.isnan(rows).any(0)
    return Curve(x[known], bands(rows[:, known], RESAMPLES))


def best_so_far(results: ExperimentResults, grid: NDArray[np.float64], *, seconds: bool = False) -> dict[str, Curve]:
    """The best reward of any clean sample seen until then, finished or estimated, of every arm on one grid (m,).

    A curve begins where each of the arm's jobs has scored something, and ends with the last of them, in NFE with the
    arm's budget if that is more; a job that ended before keeps its best.

    Args:
        results: Whose.
        grid: In NFE; or in seconds, each NFE of a job taken for an equal share of its time.
        seconds: Whether in seconds.
    """
    found = {}
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
            found[arm] = curve(records, [np.where(over, np.nan, trace) for trace in traces], grid)
    return found


def largest(results: ExperimentResults, field: str) -> float:
    """The most that any job spent: ``nfe`` or ``seconds``."""
    return max(float(getattr(record, field)) for record in results.done)


class Shares(NamedTuple):
    """What each step took of what an arm's jobs spent on steps.

    Args:
        curve: Share against step, from 0.
        left_out: Jobs that were resumed, whose first steps are not known.
    """

    curve: Curve
    left_out: int


def budget_shares(records: Sequence[JobRecord]) -> Shares | None:
    """The share of the NFE of all steps, finishing left out, that each step took; None where no step was told."""
    per_step = {record.id: _added(record.quota) for record in records}
    length = max(map(len, per_step.values()), default=0)
    whole = [record for record in records if len(per_step[record.id]) == length and sum(per_step[record.id])]
    if length == 0 or not whole:
        return None
    values = [per_step[record.id] / per_step[record.id].sum() for record in whole]
    return Shares(curve(whole, values, np.arange(length, dtype=float)), len(records) - len(whole))


def _added(quota: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """NFE of each step, over populations, which may differ in length."""
    total = np.zeros(max(map(len, quota), default=0))
    for population in quota:
        total[: len(population)] += population
    return total


def effective_sizes(records: Sequence[JobRecord]) -> Curve | None:
    """ESS after every weighting of sequential Monte Carlo, populations averaged; None where there is none."""
    told = [(record, [one["ess"] for one in record.diagnostics if one.get("ess")]) for record in records]
    length = max((len(sizes) for _, found in told for sizes in found), default=0)
    whole = [(record, found) for record, found in told if found and all(len(sizes) == length for sizes in found)]
    if not whole:
        return None
    values = [np.mean(found, axis=0) for _, found in whole]
    return curve([record for record, _ in whole], values, np.arange(length, dtype=float))


def over_optimised(results: ExperimentResults) -> list[tuple[str, str, Interval, Interval]]:
    """Arm, held-out reward and both differences, where against the first arm the given one rose and that one fell.

    Both beyond their intervals; where there is none, nothing is proved.
    """
    [reference, *others], found = results.arms, []
    for arm in others:
        for judge in results.held_out:
            up, down = (
                difference(*_both(results, measure, arm, reference)).interval for measure in (results.given, judge)
            )
            if up is not None and down is not None and up.low > 0 > down.high:
                found.append((arm, judge.name, up, down))
    return found


def _both(results: ExperimentResults, measure: Measure, arm: str, other: str) -> tuple[Cells, Cells]:
    return results.cells(measure, arm), results.cells(measure, other)
