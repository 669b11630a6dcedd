"""Comparison of searches on a mixture with a hard-to-hit mode: reward of every search against budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rollflow.bench.intervals import bootstrap
from rollflow.bench.probes.arms import SETTINGS, ProbeArm
from rollflow.bench.probes.outcomes import (
    Measured,
    Outcomes,
    ProbeOutcome,
    draw,
    measure_arms,
    reward_text,
    row,
    rows,
)
from rollflow.bench.probes.rare_mode import REACH, RareMode
from rollflow.sampler import Sampler


def measure(setting: RareMode, arms: Mapping[str, ProbeArm], nfe: int, seeds: int) -> dict[str, ProbeOutcome]:
    """Measure a column of the table: all arms with one budget and seeds 0 to ``seeds`` - 1."""
    return measure_arms(setting.task(), setting.hits, arms, nfe, seeds, bootstrap)


def plain(setting: RareMode, sampler: Sampler, trajectories: int) -> Measured:
    """Measure trajectories without selection, which show the effect of few steps; the NFE are of one trajectory."""
    drawn = draw(setting.task(), sampler, trajectories)
    hits = setting.hits(drawn.x0).double()
    return Measured(bootstrap(drawn.reward.numpy(), 1_000), bootstrap(hits.numpy(), 1_000), drawn.nfe)


def exact(setting: RareMode, budgets: Iterable[int]) -> dict[str, dict[int, float]]:
    """Return expected rewards in closed form by budget: of one sample, and of the best of NFE / 10 samples."""
    rewards, of = setting.expected_reward(), {nfe: max(1, nfe // 10) for nfe in budgets}
    return {
        "exact: one sample of the mixture": dict.fromkeys(of, float(setting.mixture.weights @ rewards)),
        "exact: best of NFE / 10 samples": {nfe: setting.best_of(n) for nfe, n in of.items()},
        "exact: one sample of the rewarded mode": dict.fromkeys(of, float(rewards[setting.mode])),
    }


def markdown(setting: RareMode, table: Outcomes, trajectories: Mapping[str, Measured], command: str, seeds: int) -> str:
    """Return the report: tables of reward, hits and spending, the exact values, and the signal.

    Args:
        setting: Mixture with its rewarded mode.
        table: Measured cells by budget and arm.
        trajectories: Measurements by ``plain``, by the name of their dynamics.
        command: Command that wrote the report.
        seeds: Number of seeds of every cell.
    """
    mixture, mode, probability = setting.mixture, setting.mode, setting.hit_probability()
    one, own = float(mixture.weights @ probability), float(probability[mode])
    hits = [f"{100 * (1 - (1 - one) ** max(1, nfe // 10)):.1f} %" for nfe in table]
    levels = [round(0.1 * i, 1) for i in range(10, 0, -1)]
    modes, dimension = mixture.means.shape
    known = [
        row(f"*{label}*", [f"{v:.3f}" for v in values.values()]) for label, values in exact(setting, table).items()
    ]
    law = [row(k, [f"{v.nfe:g}", reward_text(v.reward), v.hits.percent()]) for k, v in trajectories.items()]
    newline = "\n"
    return f"""\
# Reward against budget where the rewarded mode is hard to hit

Written by `{command}`: {seeds} seeds per cell, means with 95 % bootstrap intervals over seeds.

The model is a mixture of {modes} Gaussians in {dimension} dimensions with its exact velocity, in float64: standard \
deviation {setting.std:g}, centres at unit vectors. The reward is minus the squared distance to the centre of the one \
that has weight {100 * mixture.weights[mode]:.0f} %; a sample hits that mode if every coordinate is within \
{REACH:g} standard deviations of its centre.

{SETTINGS}
![reward against budget](mixture.png)

## Reward of the returned sample

{rows(table, lambda cell: reward_text(cell.reward))}
{newline.join(known)}

The highest possible reward, 0, is that of the mode's centre. Plain trajectories, without any selection, show the \
effect of few steps:

| plain trajectories | NFE | reward | hits |
|---|---|---|---|
{newline.join(law)}

## Share of seeds that hit the rewarded mode

{rows(table, lambda cell: cell.hits.percent())}
{row("*exact: any of NFE / 10 samples*", hits)}

An exact sample of the mixture hits with probability {100 * one:.2f} %, a sample of the rewarded mode with \
{100 * own:.2f} %. If all seeds agree the interval has no width; the 95 % bound is then 3 / {seeds}, or \
{300 / seeds:.1f} %, away.

## NFE spent

{rows(table, lambda cell: f"{cell.nfe:g}")}

## Signal

Probability that the clean estimate of a state from the rewarded mode has a higher reward than that of a state from \
another mode (0.5: no signal), by noise level on the linear interpolant; both states are drawn exactly.

{row("noise level", [f"{level}" for level in levels])}
{"|---" * (1 + len(levels))}|
{row("share", [f"{setting.signal(level):.3f}" for level in levels])}
"""
