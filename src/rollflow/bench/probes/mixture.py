"""Comparison of searches on a mixture with a hard-to-hit mode: reward of every search against budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rollflow.bench.intervals import Interval, bootstrap
from rollflow.bench.probes.arms import SETTINGS, MixtureArm
from rollflow.bench.probes.rare_mode import REACH, RareMode
from rollflow.engine import Engine, Job, Observer, Spending, completed
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Reward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN

_MAX_ROWS = 1 << 14


class Measured(NamedTuple):
    """A cell of the table.

    Args:
        reward: Reward of the returned sample, mean over seeds.
        hits: Share of seeds whose sample hits the rewarded mode.
        nfe: NFE spent by a job, mean over seeds.
    """

    reward: Interval
    hits: Interval
    nfe: float


ProbeOutcome: TypeAlias = Measured | BudgetTooSmall
Outcomes: TypeAlias = Mapping[int, Mapping[str, ProbeOutcome]]
"""Cells by budget and arm."""


def measure(setting: RareMode, arms: Mapping[str, MixtureArm], nfe: int, seeds: int) -> dict[str, ProbeOutcome]:
    """Measure a column of the table: all arms with one budget and seeds 0 to ``seeds`` - 1, in one engine."""
    task, jobs, cells = setting.task(), dict[str, list[Job]](), dict[str, ProbeOutcome]()
    for label, (sampler, search) in arms.items():
        try:
            jobs[label] = [Job(task, search(nfe), nfe, seed, sampler) for seed in range(seeds)]
        except BudgetTooSmall as error:
            cells[label] = error
    engine = Engine(_MAX_ROWS, max_grad_rows=_MAX_ROWS)
    results = iter(completed(engine.run(job for of_arm in jobs.values() for job in of_arm)))
    for label, of_arm in jobs.items():
        own = [next(results) for _ in of_arm]
        hits = setting.hits(torch.stack([result.x0 for result in own])).double()
        spent = float(np.mean([result.spent.nfe for result in own]))
        cells[label] = Measured(bootstrap([result.reward for result in own]), bootstrap(hits.numpy()), spent)
    return {label: cells[label] for label in arms}


class _Finished(Observer):
    """Records the finished samples of best of N and their rewards, which are scored all at once."""

    x0: Tensor
    reward: Tensor

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.x0, self.reward = request.x0, rewards


def plain(setting: RareMode, sampler: Sampler, trajectories: int) -> Measured:
    """Measure trajectories without selection, which show the effect of few steps; the NFE are of one trajectory."""
    task, search, samples = setting.task(), BestOfN(), _Finished()
    one = search.smallest_nfe(sampler.bind(task.model))
    completed(Engine(_MAX_ROWS, [samples]).run([Job(task, search, trajectories * one, sampler=sampler)]))
    hits = setting.hits(samples.x0).double()
    return Measured(bootstrap(samples.reward.numpy(), 1_000), bootstrap(hits.numpy(), 1_000), one)


def exact(setting: RareMode, budgets: Iterable[int]) -> dict[str, dict[int, float]]:
    """Return expected rewards in closed form by budget: of one sample, and of the best of NFE / 10 samples."""
    rewards, of = setting.expected_reward(), {nfe: max(1, nfe // 10) for nfe in budgets}
    return {
        "exact: one sample of the mixture": dict.fromkeys(of, float(setting.mixture.weights @ rewards)),
        "exact: best of NFE / 10 samples": {nfe: setting.best_of(n) for nfe, n in of.items()},
        "exact: one sample of the rewarded mode": dict.fromkeys(of, float(rewards[setting.mode])),
    }


def curves(table: Outcomes) -> dict[str, dict[int, Interval]]:
    """Return the reward of every arm by budget, where it can run."""
    by_arm: dict[str, dict[int, Interval]] = {}
    for nfe, column in table.items():
        for label, cell in column.items():
            if isinstance(cell, Measured):
                by_arm.setdefault(label, {})[nfe] = cell.reward
    return by_arm


def _reward(value: Interval) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _row(label: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((label, *cells))} |"


def _rows(table: Outcomes, show: Callable[[Measured], str]) -> str:
    """Return the table with a row for every arm and a column for every budget."""
    lines = [_row("search", [f"{nfe} NFE" for nfe in table]), "|---" * (1 + len(table)) + "|"]
    for label in next(iter(table.values())):
        cells = [column[label] for column in table.values()]
        lines.append(_row(label, [show(c) if isinstance(c, Measured) else f"needs {c.smallest}" for c in cells]))
    return "\n".join(lines)


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
        _row(f"*{label}*", [f"{v:.3f}" for v in values.values()]) for label, values in exact(setting, table).items()
    ]
    law = [_row(k, [f"{v.nfe:g}", _reward(v.reward), v.hits.percent()]) for k, v in trajectories.items()]
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

{_rows(table, lambda cell: _reward(cell.reward))}
{newline.join(known)}

The highest possible reward, 0, is that of the mode's centre. Plain trajectories, without any selection, show the \
effect of few steps:

| plain trajectories | NFE | reward | hits |
|---|---|---|---|
{newline.join(law)}

## Share of seeds that hit the rewarded mode

{_rows(table, lambda cell: cell.hits.percent())}
{_row("*exact: any of NFE / 10 samples*", hits)}

An exact sample of the mixture hits with probability {100 * one:.2f} %, a sample of the rewarded mode with \
{100 * own:.2f} %. If all seeds agree the interval has no width; the 95 % bound is then 3 / {seeds}, or \
{300 / seeds:.1f} %, away.

## NFE spent

{_rows(table, lambda cell: f"{cell.nfe:g}")}

## Signal

Probability that the clean estimate of a state from the rewarded mode has a higher reward than that of a state from \
another mode (0.5: no signal), by noise level on the linear interpolant; both states are drawn exactly.

{_row("noise level", [f"{level}" for level in levels])}
{"|---" * (1 + len(levels))}|
{_row("share", [f"{setting.signal(level):.3f}" for level in levels])}
"""
