"""How many trajectories successive halving has at every evaluation time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from rollflow.sampler import weighted_shares

_EPSILON = 1e-9  # rounding of noise levels that are given as decimals


class Rungs(NamedTuple):
    """Where trajectories end.

    Args:
        levels: Linear noise levels, falling, at the first evaluation time at or below which trajectories end.
        kept: Share of the first trajectories that go on from each, in (0, 1] and not rising.
    """

    levels: tuple[float, ...]
    kept: tuple[float, ...]


def fractions_of(rungs: Rungs, times: Sequence[float], finish_nfe: int, brackets: int = 1) -> list[list[float]]:
    """Return how many trajectories each bracket has at every evaluation time, and finishes, relative to the others.

    The brackets cost the same.

    Args:
        rungs: Rungs of the first bracket; each further one leaves out one more of the first.
        times: Linear noise levels of the evaluation times.
        finish_nfe: NFE of finishing one trajectory.
        brackets: Number of brackets, at most one more than rungs.
    """
    count = len(times)
    last = count if finish_nfe > 0 else count - 1  # after the last evaluation a choice saves only finishing
    fractions = []
    for bracket in range(brackets):
        part = [rungs.kept[bracket - 1] if bracket > 0 else 1.0] * (count + 1)
        for rung, kept in zip(rungs.levels[bracket:], rungs.kept[bracket:], strict=True):
            start = 1 + next((k for k, level in enumerate(times) if level <= rung + _EPSILON), count)
            if start <= last:
                part[start:] = [kept] * (count + 1 - start)
        cost = sum(part[:count]) + finish_nfe * part[count]
        fractions.append([share / cost for share in part])
    return fractions


def widths_of(fractions: list[list[float]], surplus: int) -> list[list[int]]:
    """Return the trajectories of each bracket at every evaluation time, and the finished ones at the end.

    Between two rungs a bracket has one trajectory; each unit of ``surplus`` adds one to such a run.
    """
    runs = [[(share, len(list(run))) for share, run in groupby(part)] for part in fractions]
    rows = iter(weighted_shares(sum(map(len, runs)) + surplus, [share for of in runs for share, _ in of]))
    return [[n for (_, length), n in zip(of, rows, strict=False) for _ in range(length)] for of in runs]
