"""Figures of profiles and of reward against budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollflow.bench.intervals import Interval
from rollflow.bench.probes.profile_curves import ProfilePoint
from rollflow.output.plots import short


def profile_plot(points: Sequence[ProfilePoint], reward: str) -> Figure:
    """Plot the figures of a profile against noise level, from noise to data."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    shares, gains = figure.subplots(1, 2)
    _curve(shares, "rank correlation", [(p.noise_level, p.correlation) for p in points], "C0")
    _curve(shares, "tail recall", [(p.noise_level, p.recall) for p in points], "C1")
    _curve(shares, "decided share", [(p.noise_level, p.decided) for p in points], "C2")
    _curve(gains, "sibling gain", [(p.noise_level, p.gain) for p in points], "C3")
    shares.set_ylim(min(-0.05, shares.get_ylim()[0]), 1.05)
    gains.set_ylabel(f"{short(reward)} for each standard deviation")
    for axes in (shares, gains):
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.set_xlabel("noise level, from noise to data")
        axes.invert_xaxis()
        axes.legend(fontsize="small")
    return figure


def _curve(axes: Axes, label: str, values: Sequence[tuple[float, Interval | None]], color: str) -> None:
    known = [(level, value) for level, value in values if value is not None]
    levels = [level for level, _ in known]
    axes.plot(levels, [value.mean for _, value in known], marker="o", markersize=3, label=label, color=color)
    low, high = [value.low for _, value in known], [value.high for _, value in known]
    axes.fill_between(levels, low, high, alpha=0.2, linewidth=0, color=color)


def budgets(
    curves: Mapping[str, Mapping[int, Interval]],
    exact: Mapping[str, Mapping[int, float]],
    reward: str = "reward",
) -> Figure:
    """Plot rewards against budget in NFE: means with their 95 % bands, and exact values in black."""
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    _budget_curves(axes, curves, exact)
    axes.set_ylabel(f"{short(reward)} of the returned sample")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def shares_plot(
    panels: Mapping[str, Mapping[str, Mapping[int, Interval]]], exact: Mapping[str, Mapping[int, float]]
) -> Figure:
    """Plot shares of right samples against budget in NFE, in a panel for each reward; exact values are black."""
    figure = Figure(figsize=(14, 6), dpi=120, layout="constrained")
    several = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, curves) in zip(several, panels.items(), strict=True):
        _budget_curves(axes, curves, exact)
        axes.set_title(title)
    several[0].set_ylabel("share of right samples")
    figure.legend(*several[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def _budget_curves(
    axes: Axes, curves: Mapping[str, Mapping[int, Interval]], exact: Mapping[str, Mapping[int, float]]
) -> None:
    """Draw means with their bands, and exact values in black, against budget."""
    for i, (label, curve) in enumerate(curves.items()):
        nfe, style = list(curve), ("-", "--", ":")[i // 10 % 3]
        axes.plot(
            nfe, [v.mean for v in curve.values()], style, color=f"C{i}", marker="o", markersize=3, label=short(label)
        )
        low, high = [value.low for value in curve.values()], [value.high for value in curve.values()]
        axes.fill_between(nfe, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
    for i, (label, values) in enumerate(exact.items()):
        axes.plot(
            list(values), list(values.values()), ("--", ":", "-.")[i % 3], color="k", linewidth=1, label=short(label)
        )
    ticks = sorted({nfe for curve in (*curves.values(), *exact.values()) for nfe in curve})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(nfe) for nfe in ticks])
    axes.minorticks_off()
    axes.set_xlabel("budget, NFE")
