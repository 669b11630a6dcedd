"""Rungs of successive halving, designed from recorded rewards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, combinations, product

import numpy as np
from numpy.typing import NDArray

from rollflow.checks import whole
from rollflow.errors import BadSetting
from rollflow.search.cost import largest
from rollflow.search.rungs import Rungs, fractions_of, widths_of

FACTORS = (0.5, 0.25)
"""Shares of the trajectories before a rung that may go on from it."""
MOST_RUNGS = 3
MOST_LEVELS = 9
"""Most noise levels at which rungs are tried; of more, evenly spaced ones."""


def designed(rewards: NDArray[np.floating], nfe: int, levels: Sequence[float] | None = None, draws: int = 64) -> Rungs:
    """Return the rungs that would have found the best samples among recorded trajectories, at an equal budget.

    Every schedule of at most ``MOST_RUNGS`` rungs, each of which keeps one of ``FACTORS``, is played on trajectories
    drawn with replacement from those of each prompt, the same ones for every schedule, and the mean final reward over
    prompts and draws decides; of equals the one with the fewest rungs, so that best of N is chosen if no rung helps.

    Designed on recorded rewards as in Yu et al. 2025, arXiv 2511.22242; the choice of schedules is unpublished.

    Args:
        rewards: (P, N, K + 1) rewards of N trajectories of P prompts at K evaluation times, and last of all those of
            the finished samples; ``Profile.trajectories`` is such an array.
        nfe: Budget for one prompt, at least K.
        levels: K linear noise levels of the evaluation times; None is 1, 1 - 1/K, ..., 1/K.
        draws: Number of times that each schedule is played for each prompt.

    Raises:
        BadSetting: If the array has another shape or values that are NaN, or the budget buys no trajectory.
    """
    matrix: NDArray[np.float64] = np.asarray(rewards, np.float64)
    if matrix.ndim != 3 or min(matrix.shape) < 1 or matrix.shape[2] < 2 or np.isnan(matrix).any():
        raise BadSetting(
            "halving is designed from rewards (prompts, trajectories, evaluation times + 1) that are not NaN; got "
            f"shape {matrix.shape}"
        )
    times = matrix.shape[2] - 1
    at = [1 - k / times for k in range(times)] if levels is None else list(levels)
    if len(at) != times:
        raise BadSetting(f"expected {times} noise levels, one for each evaluation time; got {len(at)}")
    whole("nfe", nfe, at_least=times)
    return _best(matrix.tobytes(), matrix.shape, nfe, tuple(at), draws)


@lru_cache(maxsize=64)
def _best(content: bytes, shape: tuple[int, ...], nfe: int, levels: tuple[float, ...], draws: int) -> Rungs:
    """Return the best schedule; all jobs of a run ask for the same."""
    matrix = np.frombuffer(content).reshape(shape)
    picks = np.random.default_rng(0).integers(shape[1], size=(draws, nfe))
    schedules = sorted(_schedules(levels), key=lambda one: len(one.levels))
    return max(schedules, key=lambda one: _mean_reward(matrix, picks, _widths(one, levels, nfe)))


def _widths(rungs: Rungs, levels: Sequence[float], nfe: int) -> list[int]:
    """Return how many trajectories reach each evaluation time when finishing is free."""
    fractions = fractions_of(rungs, levels, 0)

    def price(surplus: int) -> int:
        return sum(widths_of(fractions, surplus)[0][:-1])

    return widths_of(fractions, largest(price, nfe))[0][:-1]


def _schedules(levels: Sequence[float]) -> Iterator[Rungs]:
    """Yield best of N and every schedule that is tried."""
    before_last = np.arange(len(levels) - 1)  # a choice after the last evaluation saves nothing
    tried = before_last[np.linspace(0, len(levels) - 2, min(MOST_LEVELS, len(levels) - 1)).round().astype(int)]
    for count in range(MOST_RUNGS + 1):
        for rungs in combinations([levels[k] for k in tried], count):
            for factors in product(FACTORS, repeat=count):
                yield Rungs(rungs, tuple(accumulate(factors, float.__mul__)))


def _mean_reward(rewards: NDArray[np.float64], picks: NDArray[np.int64], widths: list[int]) -> float:
    """Return the mean final reward of the best trajectory after halving to these widths."""
    alive = np.broadcast_to(picks[:, : widths[0]], (len(rewards), len(picks), widths[0]))
    for k, (n, after) in enumerate(zip(widths, [*widths[1:], 1], strict=True)):
        if after < n:
            # after the last evaluation the best finished sample is chosen
            of = np.take_along_axis(rewards[:, None, :, k if k < len(widths) - 1 else -1], alive, 2)
            best = np.argpartition(-of, after - 1, axis=2)[..., :after]
            alive = np.take_along_axis(alive, best, 2)
    return float(np.take_along_axis(rewards[:, None, :, -1], alive, 2).mean())
