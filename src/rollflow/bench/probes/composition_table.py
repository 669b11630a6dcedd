"""Comparison of searches on the compositional toy: the share of seeds with every group right, against budget."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rollflow.bench.intervals import Interval, share
from rollflow.bench.probes.arms import ODE, SDE
from rollflow.bench.probes.composition import Composition
from rollflow.bench.probes.composition_arms import COMPOSITION_SETTINGS, composition_arms
from rollflow.bench.probes.outcomes import (
    Outcomes,
    ProbeOutcome,
    draw,
    from_json,
    measure_arms,
    reward_text,
    row,
    rows,
    to_json,
)
from rollflow.errors import BadSetting
from rollflow.files.documents import read_json

FORM = "rollflow composition 1"
SMOOTH, PLATEAUED = "smooth", "plateaued"
CellsByReward: TypeAlias = dict[str, dict[int, dict[str, ProbeOutcome]]]
"""Cells by reward, budget and arm."""


class PlainTrajectories(NamedTuple):
    """Trajectories of one dynamics without selection.

    Args:
        nfe: NFE of one.
        group: Share of groups that are right.
        right: Share of trajectories that have every group right.
        wrong: Mean number of wrong groups.
    """

    nfe: int
    group: Interval
    right: Interval
    wrong: float


def measure_composition(setting: Composition, nfe: int, seeds: int) -> dict[str, dict[str, ProbeOutcome]]:
    """Measure all arms with one budget, for both rewards."""
    return {
        name: measure_arms(
            setting.task(smooth=name == SMOOTH),
            setting.right,
            composition_arms(setting, smooth=name == SMOOTH),
            nfe,
            seeds,
        )
        for name in (SMOOTH, PLATEAUED)
    }


def plain_trajectories(setting: Composition, trajectories: int) -> dict[str, PlainTrajectories]:
    """Measure what the sampler does without selection, which is not quite the law in few steps.

    The interval of the share of right groups takes groups as independent, which they are.
    """
    measured = {}
    for name, sampler in (("ODE", ODE), ("SDE", SDE)):
        drawn = draw(setting.task(smooth=False), sampler, trajectories)
        groups = setting.right_groups(drawn.x0).double()
        won, n = float(groups.sum()), groups.numel()
        p, half = won / n, 1.96 * np.sqrt(won / n * (1 - won / n) / n)
        right = share(groups.prod(1).numpy(), 1_000)
        wrong = float((1 - groups).sum(1).mean())
        measured[name] = PlainTrajectories(drawn.nfe, Interval(p, p - half, p + half, n), right, wrong)
    return measured


def exact_right(setting: Composition, budgets: Sequence[int]) -> dict[int, float]:
    """Return the exact probability that any of NFE / 10 exact samples has every group right, by budget."""
    return {nfe: setting.right_in_best_of(max(1, nfe // 10)) for nfe in budgets}


def saved(table: CellsByReward, seeds: int) -> bytes:
    """Return what is known as a JSON file from which ``resumed`` continues."""
    cells = {name: {str(nfe): to_json(column) for nfe, column in columns.items()} for name, columns in table.items()}
    return json.dumps({"form": FORM, "seeds": seeds, "cells": cells}, indent=1).encode()


def resumed(text: str, setting: Composition, seeds: int) -> CellsByReward:
    """Return the cells that an earlier run has saved.

    Raises:
        BadSetting: If it was another comparison.
        ValueError: If the text is not what ``saved`` writes.
    """
    content: Any = read_json(text)
    if not isinstance(content, Mapping) or content.get("form") != FORM or not isinstance(content.get("cells"), Mapping):
        raise ValueError(f"it is not of the format '{FORM}'")
    if content.get("seeds") != seeds:
        raise BadSetting(f"the comparison was begun with {content.get('seeds')} seeds, not {seeds}; ask for as many")
    table: CellsByReward = {}
    for name in (SMOOTH, PLATEAUED):
        columns = content["cells"].get(name)
        if not isinstance(columns, Mapping):
            raise ValueError(f"it has no cells of the {name} reward")
        table[name] = {int(nfe): from_json(column) for nfe, column in columns.items()}
        arms = list(composition_arms(setting, smooth=name == SMOOTH))
        if any(list(column) != arms for column in table[name].values()):
            raise BadSetting("the comparison was begun with other searches; run it from the beginning")
    return table


def _percent(p: float) -> str:
    return f"{100 * p:.3g} %"


def _with(table: str, label: str, cells: Sequence[str]) -> str:
    return f"{table}\n{row(f'*{label}*', cells)}"


def _rights(table: Outcomes) -> str:
    return rows(table, lambda cell: cell.hits.percent())


def composition_markdown(
    setting: Composition, table: CellsByReward, trajectories: Mapping[str, PlainTrajectories], command: str, seeds: int
) -> str:
    """Return the report: tables of shares, rewards and spending by reward, and the exact values.

    Args:
        setting: Toy with its exact properties.
        table: Measured cells by reward, budget and arm.
        trajectories: Measurements by ``plain_trajectories``.
        command: Command that wrote the report.
        seeds: Number of seeds of every cell.
    """
    smooth, plateaued = table[SMOOTH], table[PLATEAUED]
    budgets = list(smooth)
    samples = [max(1, nfe // 10) for nfe in budgets]
    right = [_percent(p) for p in exact_right(setting, budgets).values()]
    biased = [_percent(setting.right_in_best_of(n, trajectories["SDE"].group.mean)) for n in samples]
    one = f"{setting.expected_likelihood():.3f}"
    exact, sampled = "exact: any of NFE / 10 samples", "any of NFE / 10 SDE trajectories, from their groups"
    shown = [_with(_with(_rights(columns), exact, right), sampled, biased) for columns in (smooth, plateaued)]
    law = [
        row(
            name,
            [
                f"{t.nfe}",
                f"{100 * t.group.mean:.2f} % [{100 * t.group.low:.2f}, {100 * t.group.high:.2f}]",
                f"{t.right.percent()}",
                f"{t.wrong:.3f}",
            ],
        )
        for name, t in trajectories.items()
    ]
    p, newline = setting.group_probability, "\n"
    by_reward = rows(plateaued, lambda cell: reward_text(cell.reward))
    fewest = [f"{-setting.fewest_wrong(n):.3f}" for n in samples]
    return f"""\
# Reward against budget where many parts have to come right

Written by `{command}`: {seeds} seeds per cell, with 95 % intervals over seeds (of shares Clopper and Pearson's if all \
seeds agree, else bootstrap).

The model has {setting.groups} independent groups, each a mixture of {setting.modes} Gaussians in {setting.dimension} \
dimensions with its exact velocity, in float64: standard deviation {setting.std:g}, centres at the vertices of a \
regular simplex on the unit sphere. One mode, of weight {100 * setting.weight:g} %, is wanted in every group; the \
others have {100 * (1 - setting.weight) / (setting.modes - 1):.1f} % each. The smooth reward is the sum over groups of \
log softmax(-distance² / (2 · {setting.width:g}²)) of the wanted mode, the plateaued one minus the number of groups \
whose nearest mode is another. A sample is right if all its groups are: an exact one with probability {p:g}^\
{setting.groups} = {p**setting.groups:.3g}.

{COMPOSITION_SETTINGS}
![share of right samples against budget](composition.png)

## Share of seeds with every group right, smooth reward

{shown[0]}

## Share of seeds with every group right, plateaued reward

{shown[1]}

Best of N is right if any of its samples is, with either reward. A trajectory of few steps does not follow the law \
quite; its groups are still independent, so that the last row follows from the share of right groups below.

| trajectories without selection | NFE | right groups | all groups right | wrong groups |
|---|---|---|---|---|
{newline.join(law)}
| *exact* | | {_percent(p)} | {_percent(p**setting.groups)} | {setting.groups * (1 - p):.3f} |

## Smooth reward of the returned sample

{rows(smooth, lambda cell: reward_text(cell.reward))}
{row("*exact: one sample*", [one] * len(budgets))}

## Plateaued reward of the returned sample

{by_reward}
{row("*exact: one sample*", [f"{-setting.fewest_wrong(1):.3f}"] * len(budgets))}
{row("*exact: best of NFE / 10 samples*", fewest)}

## NFE spent, smooth reward

{rows(smooth, lambda cell: f"{cell.nfe:g}")}
"""
