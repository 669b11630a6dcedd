"""Figures of an experiment; every mean is drawn with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rollflow.bench.analysis.estimates import Curve, by_prompt, estimate
from rollflow.bench.analysis.results import ExperimentResults, Measure
from rollflow.bench.intervals import Interval
from rollflow.output.plots import short


def _axes(width: float = 9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.2), dpi=110, layout="constrained")
    return figure, figure.subplots()


def _style(place: int) -> dict[str, Any]:
    return {"color": f"C{place}", "linestyle": ("-", "--", ":")[place // 10 % 3]}


def _whiskers(value: Interval) -> list[list[float]]:
    """Return the lengths of error bars below and above the mean; 0 if there is no interval."""
    return [[np.nan_to_num(value.mean - value.low)], [np.nan_to_num(value.high - value.mean)]]


def lines(curves: Mapping[str, Curve], arms: Sequence[str], x: str, y: str, *, whole: bool = False) -> Figure:
    """Plot means with their bands, or with error bars if there are too few points for a band.

    Args:
        curves: Curve of each arm to plot.
        arms: All arms of the experiment, so that each has the same colour in every figure.
        x: Label of the x axis.
        y: Label of the y axis.
        whole: Whether x counts something, so that ticks are whole numbers and points are marked.
    """
    figure, axes = _axes()
    for name, (at, found) in curves.items():
        style = _style(arms.index(name))
        if len(at) < 3:
            ends = np.nan_to_num([found.mean - found.low, found.high - found.mean])
            axes.errorbar(at, found.mean, ends, label=short(name), marker="o", markersize=4, capsize=3, **style)
            continue
        axes.plot(at, found.mean, label=short(name), marker="o" if whole else None, markersize=4, **style)
        axes.fill_between(at, found.low, found.high, color=style["color"], alpha=0.15, linewidth=0)
    if whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=short(x), ylabel=short(y))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def scatter(results: ExperimentResults, judge: Measure) -> Figure:
    """Plot a held-out reward against the given one: one dot per prompt, and each arm's means with intervals."""
    figure, axes = _axes()
    for place, arm in enumerate(results.arms):
        judged = results.cells(judge, arm)
        given = {key: value for key, value in results.cells(results.given, arm).items() if key in judged}
        x, y = estimate(given), estimate(judged)
        if x is None or y is None:
            continue
        axes.plot(by_prompt(given), by_prompt(judged), ".", color=f"C{place}", alpha=0.35, markersize=5)
        marker = "os^Dv"[place // 10 % 5]
        axes.errorbar(
            x.mean, y.mean, _whiskers(y), _whiskers(x), marker, color=f"C{place}", label=short(arm), capsize=3
        )
    axes.set(xlabel=short(results.given.label), ylabel=short(judge.label))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def genealogy(ancestors: Sequence[Sequence[int] | None]) -> Figure:
    """Plot the genealogy of one job's particles: lines that reach the end in colour, those that die out in grey.

    Args:
        ancestors: For each step, the row of each particle's parent in the step before; None if each row continues.
    """
    figure, axes = _axes(7)
    links = [[*parents] for parents in parents_of(ancestors)]
    alive = set(range(len(links[-1]))) if links else set()
    for step in range(len(links), 0, -1):
        for child, parent in enumerate(links[step - 1]):
            survives = child in alive
            axes.plot(
                [step - 1, step],
                [parent, child],
                color="C0" if survives else "0.8",
                linewidth=1.2 if survives else 0.6,
                zorder=2 if survives else 1,
            )
        alive = {links[step - 1][child] for child in alive}
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step, from noise to data", ylabel="particle")
    return figure


def parents_of(ancestors: Sequence[Sequence[int] | None]) -> list[list[int]]:
    """Return the parents of the particles of each step after the first, with None written out as row numbers."""
    count = max((max(step) + 1 for step in ancestors if step), default=0)
    parents = []
    for step in ancestors[1:]:
        parents.append(list(range(count)) if step is None else list(step))
        count = len(parents[-1])
    return parents
