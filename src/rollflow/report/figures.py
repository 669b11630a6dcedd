"""Figures of an experiment: no mean without its interval."""

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


def _whiskers(found: Interval) -> list[list[float]]:
    """Lengths below and above the mean; none where there is no interval."""
    return [[np.nan_to_num(found.mean - found.low)], [np.nan_to_num(found.high - found.mean)]]


def lines(curves: Mapping[str, Curve], arms: Sequence[str], x: str, y: str, *, whole: bool = False) -> Figure:
    """Means with their bands, or with bars where there are too few points for a band.

    Args:
        curves: By arm.
        arms: All there are, so that each has its colour in every figure.
        x: Label.
        y: Label.
        whole: Whether x counts something, so that its ticks are whole and its points marked.
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
    """A held-out reward against the given one: a dot a prompt, and each arm's means with their intervals."""
    figure, axes = _axes()
    for place, arm in enumerate(results.arms):
        told = results.cells(judge, arm)
        given = {key: value for key, value in results.cells(results.given, arm).items() if key in told}
        x, y = estimate(given), estimate(told)
        if x is None or y is None:
            continue
        axes.plot(by_prompt(given), by_prompt(told), ".", color=f"C{place}", alpha=0.35, markersize=5)
        marker = "os^Dv"[place // 10 % 5]
        axes.errorbar(
            x.mean, y.mean, _whiskers(y), _whiskers(x), marker, color=f"C{place}", label=short(arm), capsize=3
        )
    axes.set(xlabel=short(results.given.label), ylabel=short(judge.label))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def genealogy(ancestors: Sequence[Sequence[int] | None]) -> Figure:
    """Who descends from whom in one job: in colour the lines that reach the end, in grey those that died out.

    Args:
        ancestors: After each step the parent of each particle among those of the step before; None is its own row.
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
    """Parents of the particles of each step after the first, rows that go on as they are written out."""
    count = max((max(step) + 1 for step in ancestors if step), default=0)
    found = []
    for step in ancestors[1:]:
        found.append(list(range(count)) if step is None else list(step))
        count = len(found[-1])
    return found
