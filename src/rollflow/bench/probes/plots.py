"""Figures of the reward signal and of reward against budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from rollflow.bench.intervals import Interval
from rollflow.bench.probes.signal import SignalPoint
from rollflow.output.plots import short


def signal(curves: Mapping[str, Sequence[SignalPoint]]) -> Figure:
    """Plot the rank correlation of rewards with those of the finished samples against noise level."""
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for label, curve in curves.items():
        levels, means = [p.noise_level for p in curve], [p.correlation.mean for p in curve]
        axes.plot(levels, means, marker="o", markersize=3, label=label)
        axes.fill_between(levels, [p.correlation.low for p in curve], [p.correlation.high for p in curve], alpha=0.2)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set(xlabel="noise level of the state, from noise to data", ylabel="rank correlation with the finished sample")
    axes.invert_xaxis()
    axes.legend(fontsize="small")
    return figure


def budgets(
    curves: Mapping[str, Mapping[int, Interval]],
    exact: Mapping[str, Mapping[int, float]],
    reward: str = "reward",
) -> Figure:
    """Plot rewards against budget in NFE: means with their 95 % bands, and exact values in black."""
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
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
    axes.set(xlabel="budget, NFE", ylabel=f"{short(reward)} of the returned sample")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
