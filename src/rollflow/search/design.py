"""Design of a beam: noise levels and numbers of children for a budget, from what choosing gains at each level."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rollflow.sampler import even_shares

MOST = 1024
"""Largest budget that a design is made for; a larger one is spent in the same proportions."""
LAST = 0.2
"""Noise level at or below which a design has at least one level, so that it ends in a sample."""


class Design(NamedTuple):
    """Noise levels and children of a beam.

    Args:
        levels: Noise levels, falling.
        children: Number of children at each, whose sum is the budget, or ``MOST`` if that is less.
        gain: Predicted gain in reward of all choices together.
    """

    levels: tuple[float, ...]
    children: tuple[int, ...]
    gain: float


@functools.lru_cache(maxsize=256)
def design(gains: tuple[float, ...], levels: tuple[float, ...], budget: int) -> Design:
    """Choose the levels and the children with the largest predicted gain.

        maximize  sum_k kappa_k e(P_k),    P_k >= 1,    sum_k P_k = budget,    e(P) = E[max of P standard normals]

    Given the levels, the children are found by greedy steps, which is exact since e is concave. Levels are left out one
    by one, each time the one without which the predicted gain is the largest, as long as it grows. The step over a
    level that is left out is longer, and a child draws the noise of both: the kappa of the next level becomes
    sqrt(kappa_k^2 + kappa_{k+1}^2). The first level stays, and so does the last one at or below ``LAST`` (or, if there
    is none, the last). What the rule leaves out: a child's estimate says less after a longer step, and the choice among
    parents. Unpublished.

    Args:
        gains: Sibling gain kappa_k at each level (``Profile.gains``); a negative one, which is noise, counts as 0.
        levels: Noise levels, falling.
        budget: Number of children in all. With fewer than two, one child is left at each of two levels.
    """
    budget = min(budget, MOST)
    kappa, kept = np.maximum(gains, 0.0), list(levels)
    while True:
        short = len(kept) > budget
        spent = 2 * len(kept) if short else budget  # one child each tells levels apart by nothing
        tries = [(_gain(without(kappa, i), spent), -i) for i in _droppable(kept)]
        if not tries or not (short or max(tries)[0] > _gain(kappa, spent) * (1 + 1e-12)):
            break
        dropped = -max(tries)[1]
        kappa = without(kappa, dropped)
        del kept[dropped]
    return Design(tuple(kept), tuple(_children(kappa, budget)), _gain(kappa, budget))


def without(kappa: NDArray[np.float64], i: int) -> NDArray[np.float64]:
    """Return the gains without level i, whose own goes to the next; that of the last level is lost."""
    merged = np.delete(kappa, i)
    if i < len(merged):
        merged[i] = np.hypot(kappa[i], kappa[i + 1])
    return merged


def _droppable(levels: list[float]) -> list[int]:
    low = [level <= max(LAST, levels[-1]) for level in levels]
    return [i for i in range(1, len(levels)) if not low[i] or sum(low[1:]) > 1]


def _picks(kappa: NDArray[np.float64], budget: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """(K, budget) gains of a second, third, ... child at each level, and the places of those that are bought."""
    spare = max(0, budget - len(kappa))
    more = kappa[:, None] * np.diff(expected_maxima(MOST + 1))[: spare + 1]
    return more, np.argsort(-more, axis=None, kind="stable")[:spare]


def _gain(kappa: NDArray[np.float64], budget: int) -> float:
    more, bought = _picks(kappa, budget)
    return float(more.ravel()[bought].sum())


def _children(kappa: NDArray[np.float64], budget: int) -> list[int]:
    if not kappa.any():
        return even_shares(max(budget, len(kappa)), len(kappa))
    more, bought = _picks(kappa, budget)
    counts = 1 + np.bincount(bought // more.shape[1], minlength=len(kappa))
    return [int(count) for count in counts]


@functools.cache
def expected_maxima(most: int) -> NDArray[np.float64]:
    """(most,) expected maxima of 1, 2, ..., ``most`` independent standard normal variables.

        e(n) = int x n phi(x) Phi(x)^(n - 1) dx

    by the trapezoidal rule, whose error falls faster than any power of the step for such an integrand.
    """
    step = 0.05
    x = torch.arange(-9, 9 + step / 2, step, dtype=torch.float64)
    log_density = -(x**2) / 2 - 0.5 * float(np.log(2 * np.pi))
    n = torch.arange(1, most + 1, dtype=torch.float64)[:, None]
    integrand = x * n * torch.exp(log_density + (n - 1) * torch.special.log_ndtr(x))
    return np.asarray((integrand.sum(1) * step).numpy())
