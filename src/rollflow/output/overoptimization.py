"""Over-optimisation: whether the reward rose at the expense of held-out rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from rollflow.engine import Result
from rollflow.output.recorder import Recorder
from rollflow.rewards.scoring import judged_by


class Judged(NamedTuple):
    """The scores of a finished sample or a clean estimate, by the reward and the held-out rewards.

    Args:
        noise_level: Linear noise level of the state that the estimate was made from; 0 for a finished sample.
        reward: Score by what the search optimises; NaN if the search did not request it.
        held_out: Held-out rewards by name.
    """

    noise_level: float
    reward: float
    held_out: dict[str, float]


def along(result: Result, recorder: Recorder) -> list[Judged]:
    """Score the clean estimates on the path to a result by the held-out rewards, outside the budget.

    Args:
        result: Result of the search.
        recorder: Observer of the search.
    """
    task = result.job.task
    path = []
    for frame in recorder.path(result)[:-1]:
        with torch.no_grad():
            sample = task.model.decode(frame.x0[None].clone())
        held_out = judged_by(task.held_out, sample, task.prompt).scores
        path.append(Judged(frame.noise_level, frame.reward, held_out))
    return [*path, of(result)]


def of(result: Result) -> Judged:
    """Return the scores of a result."""
    return Judged(result.noise_level, result.objective, result.held_out)


def warnings(result: Result, baseline: Result | None, path: Sequence[Judged]) -> list[str]:
    """Return one line for each held-out reward at whose expense the reward rose.

    That is so if the sample has a higher reward but a lower held-out reward than the plain sample, or than the estimate
    on its path with the highest held-out reward. A relative reward is not compared with the plain sample, which it
    never saw.

    Args:
        result: Result of the search.
        baseline: Plain sample, if there is one.
        path: Path that led to the result, scored (``along``); empty if it was not.
    """
    return [*_warnings(result, baseline, path)]


def _warnings(result: Result, baseline: Result | None, path: Sequence[Judged]) -> Iterator[str]:
    reward, end = result.job.task.objective.name, of(result)
    for name in result.held_out:
        known = [point for point in path if not (math.isnan(point.reward) or math.isnan(point.held_out[name]))]
        peak = max(known, key=lambda point: point.held_out[name], default=None)
        for where, before in (
            ("the plain sample", None if baseline is None or result.job.task.objective.relative else of(baseline)),
            (None if peak is None else f"the estimate at noise level {peak.noise_level:.2f}", peak),
        ):
            if before is not None and end.reward > before.reward and end.held_out[name] < before.held_out[name]:
                yield (
                    f"over-optimised? From {where} on, {reward} rose ({before.reward:.4g} -> {end.reward:.4g}) while "
                    f"held-out {name} fell ({before.held_out[name]:.4g} -> {end.held_out[name]:.4g})"
                )
                break
