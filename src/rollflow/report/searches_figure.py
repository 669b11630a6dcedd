"""The figure of searches at several budgets: every search is labelled where its curve ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollflow.bench.analysis.estimates import estimate
from rollflow.bench.analysis.results import ExperimentResults, Measure
from rollflow.bench.analysis.searches import (
    Reference,
    Searches,
    defaults_of,
    measures_of,
    reference_of,
    searches_of,
)
from rollflow.bench.intervals import Interval
from rollflow.output.plots import short

_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#5D3A9B", "#7F7F7F")
"""Colours that people with any kind of colour vision can tell apart (after Okabe & Ito 2008), beside those below."""
_DEFAULT, _REFERENCE = "#D55E00", "#000000"
_MARKERS = "osv^DPX<"


class _Style(NamedTuple):
    color: str
    marker: str
    width: float
    line: str = "-"


def searches_plot(results: ExperimentResults) -> Figure:
    """Plot every measure against budget, with 95 % intervals: a column for each measure, a row for each dynamics.

    The dynamics of a search is what follows the comma in its name; a search without one is in every row.
    """
    searches, measures = searches_of(results), measures_of(results)
    reference = reference_of(results, searches)
    rows = _by_dynamics(searches)
    figure = Figure(figsize=(6.2 * len(measures), 4.6 * len(rows)), dpi=110, layout="constrained")
    panels = figure.subplots(len(rows), len(measures), squeeze=False, sharey="col")
    for line, (dynamics, names) in zip(panels, rows.items(), strict=True):
        for axes, measure in zip(line, measures, strict=True):
            _panel(axes, results, measure, {name: searches[name] for name in names}, reference)
            axes.set_title(f"{short(measure.label)}{f', {short(dynamics)}' if dynamics else ''}", fontsize="medium")
    return figure


def _by_dynamics(searches: Searches) -> dict[str, list[str]]:
    of = {name: name.rpartition(", ")[2] if ", " in name else "" for name in searches}
    names = [one for one in dict.fromkeys(of.values()) if one] or [""]
    return {one: [name for name, own in of.items() if own in (one, "")] for one in names}


def _panel(
    axes: Axes, results: ExperimentResults, measure: Measure, searches: Searches, reference: Reference | None
) -> None:
    budgets = sorted({nfe for arms in searches.values() for nfe in arms})
    compared = [nfe for nfe in budgets if reference is None or nfe < reference.nfe] or budgets
    styles = _styles(searches, reference)
    ends: dict[str, tuple[float, float]] = {}
    for name, arms in searches.items():
        means = {nfe: estimate(results.cells(measure, arm), shares=measure.accuracy) for nfe, arm in arms.items()}
        curve = {nfe: mean for nfe, mean in means.items() if mean is not None and nfe in compared}
        if curve:
            _curve(axes, curve, styles[name], 1 + 0.006 * (list(searches).index(name) - len(searches) / 2))
            ends[_label(name, searches)] = max(curve), curve[max(curve)].mean
    if reference is not None:
        mean = estimate(results.cells(measure, reference.arm), shares=measure.accuracy)
        if mean is not None:
            axes.hlines(mean.mean, compared[0] / 1.08, compared[-1], _REFERENCE, ":", linewidth=1)
            axes.annotate(
                f"{short(reference.name)} at {reference.nfe} NFE",
                (0.01, mean.mean),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize="small",
            )
    axes.set_xscale("log")
    axes.set_xticks(compared, [str(nfe) for nfe in compared])
    axes.minorticks_off()
    axes.set_xlim(compared[0] / 1.08, compared[-1] * max(compared[-1] / compared[0], 2.0) ** 0.4)
    axes.set_xlabel("budget, NFE")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _write_labels(axes, ends, {_label(name, searches): style for name, style in styles.items()})


def _styles(searches: Searches, reference: Reference | None) -> dict[str, _Style]:
    """Return the styles of searches: the default one stands out, and each other one has the same in every row."""
    styles, others = {}, 0
    for name in searches:
        if name in defaults_of({name: {}}):
            styles[name] = _Style(_DEFAULT, *(("d", 2.4, "--") if ", " in name else ("*", 2.4, "-")))
        elif reference is not None and name == reference.name:
            styles[name] = _Style(_REFERENCE, "o", 1.6)
        else:
            styles[name] = _Style(_COLORS[others % len(_COLORS)], _MARKERS[others % len(_MARKERS)], 1.2)
            others += 1
    return styles


def _label(name: str, searches: Searches) -> str:
    """Return the name of a search without its dynamics, which the panel names, unless another one has that name."""
    bare = name.rpartition(", ")[0]
    return name if not bare or bare in searches else bare


def _curve(axes: Axes, curve: Mapping[int, Interval], style: _Style, aside: float) -> None:
    """Draw a mean against budget, moved aside by a factor so that intervals do not hide each other."""
    nfe, means = [aside * budget for budget in curve], [value.mean for value in curve.values()]
    axes.plot(nfe, means, style.line, color=style.color, marker=style.marker, markersize=5, linewidth=style.width)
    known = {aside * budget: value for budget, value in curve.items() if not value.lacking}
    low, high = [value.low for value in known.values()], [value.high for value in known.values()]
    axes.vlines(list(known), low, high, color=style.color, alpha=0.35, linewidth=style.width)


def _write_labels(axes: Axes, ends: Mapping[str, tuple[float, float]], styles: Mapping[str, _Style]) -> None:
    """Write the names right of the curves, apart from each other, each with a line to the end of its curve."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.052
    order = sorted(ends, key=lambda name: ends[name][1])
    places: list[float] = []
    for name in order:
        places.append(max(ends[name][1], places[-1] + gap if places else low))
    over = max(0.0, places[-1] - high) if places else 0.0
    for i in reversed(range(len(places))):  # push down what would lie above the panel
        top = high if i + 1 == len(places) else places[i + 1] - gap
        places[i] = min(places[i], top) if over else places[i]
    right = max((x for x, _ in ends.values()), default=1.0)
    for name, place in zip(order, places, strict=True):
        x, y = ends[name]
        axes.plot([x, right * 1.09], [y, place], color=styles[name].color, linewidth=0.6, alpha=0.7, clip_on=False)
        weight = "bold" if styles[name].color == _DEFAULT else "normal"
        axes.text(
            right * 1.1,
            place,
            short(name, 30),
            color=styles[name].color,
            fontsize="small",
            fontweight=weight,
            verticalalignment="center",
        )
    axes.set_ylim(low, high)
