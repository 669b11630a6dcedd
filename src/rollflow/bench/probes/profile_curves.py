"""Statistics of a profile with their intervals, and its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollflow.bench.intervals import Interval, constant, interval, rank_correlation, ratio
from rollflow.search.design import design
from rollflow.search.profile import Profile

BEST, RECALLED = 0.05, 0.25
"""Shares of the trajectories in tail recall: the best finished samples, and the best estimates to find them in."""


class ProfilePoint(NamedTuple):
    """What a profile says of one noise level; means over prompts with their 95 % intervals.

    A figure is None where no prompt has it.

    Args:
        noise_level: Linear noise level of the estimates.
        correlation: Mean within a prompt of Spearman's rank correlation of the estimates' rewards with those of the
            finished samples, over independent trajectories; of prompts where neither is constant.
        recall: ``tail_recall``; of prompts whose finished rewards are not constant.
        gain: Sibling gain (``Profile.gains``).
        decided: Share of the variance of the finished reward that the state at this level has decided
            (``Profile.decided``); None at the last level, from which no siblings part.
        prompts: Number of prompts that have a correlation.
    """

    noise_level: float
    correlation: Interval | None
    recall: Interval | None
    gain: Interval
    decided: Interval | None
    prompts: int


def profile_curve(profile: Profile) -> list[ProfilePoint]:
    """Return the figures of a profile at each of its noise levels, from noise to data."""
    gains, seed = profile.gains(), profile.seed
    points = []
    for k, level in enumerate(profile.levels):
        pairs = [(row[:, k], row[:, -1]) for row in profile.trajectories]
        correlations = [rank_correlation(y, f) for y, f in pairs]
        known = [value for value in correlations if value is not None]
        recalls = [tail_recall(y, f) for y, f in pairs if not constant(f)]
        points.append(
            ProfilePoint(
                level,
                interval(known, seed=seed) if known else None,
                interval(recalls, seed=seed) if recalls else None,
                interval(gains[:, k], seed=seed),
                _decided(profile, k + 1) if k + 1 < len(profile.levels) else None,
                len(known),
            )
        )
    return points


def _decided(profile: Profile, k: int) -> Interval | None:
    between, within = profile.mean_squares(k)
    share = ratio(between - within, between + (profile.siblings - 1) * within, seed=profile.seed)
    if share is None:
        return None
    mean, low, high = (float(np.maximum(value, 0.0)) for value in share[:3])
    return Interval(mean, low, high, share.n)


def tail_recall(y: NDArray[np.float64], f: NDArray[np.float64]) -> float:
    """Return the share of the best ``BEST`` of all finished rewards that lie in the best ``RECALLED`` by estimate.

    A bulk correlation can be high while the tail, which is what a search is after, is told apart badly. The best finals
    are at least one, and those that tie with them are as good; of more than fit into the best quarter, it is the share
    of those that fit. Ties of estimates are broken at random, in expectation. So estimates that are the finals
    themselves recall all, and estimates that are all equal recall ``RECALLED`` of the best, unless these are more.

    Args:
        y: (N,) rewards of estimates.
        f: (N,) rewards of the finished samples.
    """
    least, room = np.sort(f)[-max(1, round(BEST * len(f)))], RECALLED * len(f)
    best = f >= least
    found = _among_best(np.zeros_like(y) if constant(y) else y, room)[best].sum()
    return float(found / min(best.sum(), room))


def _among_best(values: NDArray[np.float64], count: float) -> NDArray[np.float64]:
    """Probability of each value to be among the best ``count``, with ties broken at random."""
    above = (values[None] > values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return np.asarray(np.clip((count - above) / equal, 0, 1))


_HEAD = """\
| noise level | rank correlation | tail recall | sibling gain | decided share | prompts |
|---|---|---|---|---|---|"""
_BUDGETS = (50, 100, 200)
_NOTES = f"""\
- Rank correlation: Spearman's, within a prompt, of the reward of the clean estimate with that of the finished sample.
- Tail recall: share of the best {100 * BEST:g} % of the finished samples that are in the best {100 * RECALLED:g} % by \
estimate.
- Sibling gain: what choosing among siblings that part here gains in the finished reward, for each standard deviation by
  which the best estimate lies above the mean.
- Decided share: share of the variance of the finished reward that the state at this noise level has decided.
- Prompts: how many have a rank correlation, since neither reward is constant."""


def profile_markdown(profile: Profile, points: Sequence[ProfilePoint], command: str, picture: str) -> str:
    """Return the report of a profile.

    Args:
        profile: The profile.
        points: Its figures.
        command: Command that wrote it.
        picture: Name of its plot.
    """
    rows = []
    for level, correlation, recall, gain, decided, prompts in points:
        told = (f"{level:.2f}", correlation, recall, _figure(gain), decided, prompts)
        rows.append(f"| {' | '.join('' if cell is None else str(cell) for cell in told)} |")
    table, newline = "\n".join([_HEAD, *rows]), "\n"
    gains, beams = tuple(profile.gains().mean(0).tolist()), []
    for nfe in _BUDGETS:
        found = design(gains, profile.levels, nfe)
        levels = ", ".join(f"{level:.2f}" for level in found.levels)
        beams.append(f"| {nfe} | {levels} | {', '.join(map(str, found.children))} |")
    return f"""\
# Profile of `{profile.reward}` on {profile.model}

Written by `{command}`: {len(profile.prompts)} prompts, {profile.parents} parents of {profile.siblings} siblings each \
at every noise level, kernel {profile.kernel} along the {profile.interpolant} interpolant, seed {profile.seed}. Means \
over prompts with 95 % intervals.

![profile]({picture})

{table}

{_NOTES}

## Beams made of it

What `beam` chooses at some budgets (`rollflow.search.design`):

| NFE | noise levels | children |
|---|---|---|
{newline.join(beams)}
"""


def _figure(value: Interval) -> str:
    return value.text(f"{value.mean:.3f}", f"{value.low:.3f}, {value.high:.3f}")
