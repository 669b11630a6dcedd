"""Held-out rewards beside the one that was optimised: whether it rose at their expense."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from rollflow.engine import Result
from rollflow.output.recorder import Recorder
from rollflow.rewards.scoring import judged_by


class Judged(NamedTuple):
    """A clean sample, finished or promised, as the reward and the held-out ones see it.

    Args:
        noise_level: Linear noise level of the state that promised it; 0 for a finished sample.
        reward: NaN where the search did not ask.
        held_out: By name.
    """

    noise_level: float
    reward: float
    held_out: dict[str, float]


def along(result: Result, recorder: Recorder) -> list[Judged]:
    """The path that led to a result, its clean estimates scored by the held-out rewards; no part of the budget.

    Args:
        result: Of the search.
        recorder: That watched it.
    """
    task = result.job.task
    path = []
    for frame in recorder.path(result)[:-1]:
        with torch.no_grad():
            sample = task.model.decode(frame.x0[None].clone())
        told = judged_by(task.held_out, sample, task.prompt).scores
        path.append(Judged(frame.noise_level, frame.reward, told))
    return [*path, of(result)]


def of(result: Result) -> Judged:
    """A result itself."""
    return Judged(result.noise_level, result.reward, result.held_out)


def warnings(result: Result, baseline: Result | None, path: Sequence[Judged]) -> list[str]:
    """One line for each held-out reward at whose expense the reward rose.

    It did where the sample has a higher reward than the plain one and a lower held-out one; and where it has a higher
    reward than the sample of its path that the held-out reward liked best. A relative reward says nothing of the plain
    sample, which it never saw.

    Args:
        result: Of the search.
        baseline: The plain sample, if one was made.
        path: That led to the result (``along``); empty where it was not scored.
    """
    return [*_warnings(result, baseline, path)]


def _warnings(result: Result, baseline: Result | None, path: Sequence[Judged]) -> Iterator[str]:
    reward, end = result.job.task.reward.name, of(result)
    for name in result.held_out:
        known = [point for point in path if not (math.isnan(point.reward) or math.isnan(point.held_out[name]))]
        peak = max(known, key=lambda point: point.held_out[name], default=None)
        for where, before in (
            ("the plain sample", None if baseline is None or result.job.task.reward.relative else of(baseline)),
            (None if peak is None else f"the estimate at noise level {peak.noise_level:.2f}", peak),
        ):
            if before is not None and end.reward > before.reward and end.held_out[name] < before.held_out[name]:
                yield (
                    f"over-optimised? From {where} on, {reward} rose ({before.reward:.4g} -> {end.reward:.4g}) while "
                    f"held-out {name} fell ({before.held_out[name]:.4g} -> {end.held_out[name]:.4g})"
                )
                break
