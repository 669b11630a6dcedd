"""Comparison of searches on recorded rewards: finished reward against budget, and the NFE that equal best of N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.equal_reward import EQUAL_REWARD_NOTE, needed, needed_text
from rollflow.bench.intervals import interval
from rollflow.bench.probes.outcomes import MAX_ROWS, reward_text, row
from rollflow.bench.probes.recorded import Recording
from rollflow.engine import Engine, completed
from rollflow.errors import BadSetting
from rollflow.search import BestOfN, Halving, Search
from rollflow.search.halving_design import designed

DESIGNED = "halving, designed on the other half of the prompts"


class ReplayedCurve(NamedTuple):
    """A search on recorded rewards.

    Args:
        label: Name of the search.
        values: (P,) mean over seeds of the finished reward of every prompt, by budget; no budgets that it cannot have.
    """

    label: str
    values: Mapping[int, NDArray[np.float64]]


def replayed(
    recording: Recording, search: Search, budgets: Sequence[int], seeds: int
) -> dict[int, NDArray[np.float64]]:
    """Run a search on every prompt with seeds 0 to ``seeds`` - 1, and return the mean reward of each prompt, by budget.

    Budgets with which it cannot run, or that ask for more trajectories than are recorded, are left out.

    Raises:
        BadSetting: If the search does more than choose among trajectories.
    """
    return {
        nfe: np.array(_rewards(recording, search, nfe, seeds, range(recording.prompts)))
        for nfe in affordable(recording, search, budgets)
    }


def affordable(recording: Recording, search: Search, budgets: Sequence[int]) -> list[int]:
    """Return the budgets with which a search can run on recorded rewards."""
    runnable = []
    for nfe in budgets:
        try:
            recording.job(search, nfe, 0, 0)
        except BadSetting:  # a budget too small or too large
            continue
        runnable.append(nfe)
    return runnable


def _rewards(recording: Recording, search: Search, nfe: int, seeds: int, prompts: Sequence[int]) -> list[float]:
    jobs = [recording.job(search, nfe, prompt, seed) for prompt in prompts for seed in range(seeds)]
    rewards = [result.reward for result in completed(Engine(MAX_ROWS).run(jobs))]
    return [float(np.mean(rewards[seeds * i : seeds * (i + 1)])) for i in range(len(prompts))]


def replayed_designed(recording: Recording, budgets: Sequence[int], seeds: int) -> dict[int, NDArray[np.float64]]:
    """Run halvings whose rungs are designed for each budget on one half of the prompts, on the other half.

    Halves are the prompts with even and with odd numbers; both are played, so that every prompt has a value. Where the
    design begins more trajectories than are recorded, best of N takes its place.
    """
    halves = [range(first, recording.prompts, 2) for first in (0, 1)]
    values = dict[int, NDArray[np.float64]]()
    for nfe in affordable(recording, BestOfN(), budgets):
        of = np.empty(recording.prompts)
        for own, other in (halves, halves[::-1]):
            rungs = designed(recording.rewards[list(other)], nfe, recording.levels)
            search: Search = Halving(rungs.levels, rungs.kept)
            if not affordable(recording, search, [nfe]):
                search = BestOfN()
            of[list(own)] = _rewards(recording, search, nfe, seeds, own)
        values[nfe] = of
    return values


def best_of_n(recording: Recording, budgets: Sequence[int]) -> ReplayedCurve:
    """Return best of N in closed form, where N trajectories are recorded."""
    counts = {nfe: nfe // recording.steps for nfe in budgets}
    known = {nfe: recording.best_of(n) for nfe, n in counts.items() if 1 <= n <= recording.trajectories}
    return ReplayedCurve("best of N, exact", known)


def recorded_markdown(
    recording: Recording, curves: Sequence[ReplayedCurve], budgets: Sequence[int], reference: int, command: str
) -> str:
    """Return the report: finished rewards by budget, and the NFE that equal best of N at a budget.

    Args:
        recording: Recorded rewards.
        curves: Searches, best of N first.
        budgets: Budgets in NFE, rising.
        reference: Budget of best of N whose reward is to be reached.
        command: Command that wrote the report.
    """
    lines = [row("search", [f"{nfe} NFE" for nfe in budgets]), "|---" * (1 + len(budgets)) + "|"]
    for curve in curves:
        lines.append(row(curve.label, [_cell(curve.values.get(nfe)) for nfe in budgets]))
    target = curves[0].values[reference]
    equal = [row(curve.label, [needed_text(needed(curve.values, target), sorted(curve.values))]) for curve in curves]
    newline = "\n"
    return f"""\
# Searches on recorded rewards

Written by `{command}`.

{recording.prompts} prompts, {recording.trajectories} trajectories of each, {recording.steps} evaluations a \
trajectory, which are its NFE. Searches run as on a model, and every seed draws trajectories without replacement; \
a search sees the finished reward at the last evaluation. Means over prompts with 95 % intervals over prompts. "-": \
the search cannot run, or begins more trajectories than were recorded.

## Finished reward

{newline.join(lines)}

## NFE for the reward of best of N at {reference} NFE

{EQUAL_REWARD_NOTE}

| search | NFE |
|---|---|
{newline.join(equal)}
"""


def _cell(values: NDArray[np.float64] | None) -> str:
    if values is None:
        return "-"
    mean = interval(values)
    return reward_text(mean) if not mean.lacking else f"{mean.mean:.3f} ({mean.lacking})"
