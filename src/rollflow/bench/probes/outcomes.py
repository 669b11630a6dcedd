"""Cells of the comparisons on closed-form models: reward, share of hits and NFE of a search at a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollflow.bench.intervals import Interval, bootstrap, share
from rollflow.bench.probes.arms import ProbeArm
from rollflow.engine import Engine, Job, Observer, Spending, Task, completed
from rollflow.errors import BudgetTooSmall
from rollflow.requests import Reward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN

MAX_ROWS = 1 << 14
"""Rows of a call of the model; on these models a call costs more than its rows."""


class Measured(NamedTuple):
    """A cell of the table.

    Args:
        reward: Reward of the returned sample, mean over seeds.
        hits: Share of seeds whose sample is what is wanted.
        nfe: NFE spent by a job, mean over seeds.
    """

    reward: Interval
    hits: Interval
    nfe: float


ProbeOutcome: TypeAlias = Measured | BudgetTooSmall
Outcomes: TypeAlias = Mapping[int, Mapping[str, ProbeOutcome]]
"""Cells by budget and arm."""
ShareOf: TypeAlias = Callable[[NDArray[np.float64]], Interval]
"""Interval of the mean of values that are 0 or 1."""


def measure_arms(
    task: Task,
    hits: Callable[[Tensor], Tensor],
    arms: Mapping[str, ProbeArm],
    nfe: int,
    seeds: int,
    share_of: ShareOf = share,
) -> dict[str, ProbeOutcome]:
    """Measure a column of the table: all arms with one budget and seeds 0 to ``seeds`` - 1, in one engine.

    Args:
        task: Model and reward.
        hits: Function from samples (B, ...) to whether each is what is wanted, a bool of shape (B,).
        arms: Arms by label.
        nfe: Budget of a job.
        seeds: Number of seeds.
        share_of: Interval of the share of hits.
    """
    jobs, cells = dict[str, list[Job]](), dict[str, ProbeOutcome]()
    for label, arm in arms.items():
        try:
            jobs[label] = [arm.job(task, nfe, seed) for seed in range(seeds)]
        except BudgetTooSmall as error:
            cells[label] = error
    engine = Engine(MAX_ROWS, max_grad_rows=MAX_ROWS)
    results = iter(completed(engine.run(job for of_arm in jobs.values() for job in of_arm)))
    for label, of_arm in jobs.items():
        own = [next(results) for _ in of_arm]
        hit = hits(torch.stack([result.x0 for result in own])).double()
        spent = float(np.mean([result.spent.nfe for result in own]))
        cells[label] = Measured(bootstrap([result.reward for result in own]), share_of(hit.numpy()), spent)
    return {label: cells[label] for label in arms}


class _Finished(Observer):
    """Records the finished samples of best of N and their rewards, which are scored all at once."""

    x0: Tensor
    reward: Tensor

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.x0, self.reward = request.x0, rewards


class PlainDraws(NamedTuple):
    """Trajectories without selection.

    Args:
        x0: (B, ...) finished samples.
        reward: (B,) their rewards.
        nfe: NFE of one of them.
    """

    x0: Tensor
    reward: Tensor
    nfe: int


def draw(task: Task, sampler: Sampler, trajectories: int) -> PlainDraws:
    """Draw trajectories without selection, which show the effect of few steps."""
    search, samples = BestOfN(), _Finished()
    one = search.smallest_nfe(sampler.bind(task.model))
    completed(Engine(MAX_ROWS, [samples]).run([Job(task, search, trajectories * one, sampler=sampler)]))
    return PlainDraws(samples.x0, samples.reward, one)


def curves(
    table: Outcomes, value: Callable[[Measured], Interval] = lambda cell: cell.reward
) -> dict[str, dict[int, Interval]]:
    """Return a figure of every arm, by default its reward, by budget, where it can run."""
    by_arm: dict[str, dict[int, Interval]] = {}
    for nfe, column in table.items():
        for label, cell in column.items():
            if isinstance(cell, Measured):
                by_arm.setdefault(label, {})[nfe] = value(cell)
    return by_arm


def row(label: str, cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join((label, *cells))} |"


def reward_text(value: Interval) -> str:
    """Return a mean reward with its interval as text."""
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def rows(table: Outcomes, show: Callable[[Measured], str]) -> str:
    """Return the Markdown table with a row for every arm and a column for every budget."""
    lines = [row("search", [f"{nfe} NFE" for nfe in table]), "|---" * (1 + len(table)) + "|"]
    for label in next(iter(table.values())):
        cells = [column[label] for column in table.values()]
        lines.append(row(label, [show(c) if isinstance(c, Measured) else f"needs {c.smallest}" for c in cells]))
    return "\n".join(lines)


def to_json(column: Mapping[str, ProbeOutcome]) -> dict[str, Any]:
    """Return the cells of a column in JSON types."""
    return {
        label: {"reward": list(cell.reward), "hits": list(cell.hits), "nfe": cell.nfe}
        if isinstance(cell, Measured)
        else {"method": cell.method, "budget": cell.nfe, "smallest": cell.smallest}
        for label, cell in column.items()
    }


def from_json(column: Mapping[str, Any]) -> dict[str, ProbeOutcome]:
    """Return the cells that ``to_json`` wrote.

    Raises:
        ValueError: If they are not such cells.
    """
    try:
        return {
            label: BudgetTooSmall(str(cell["method"]), int(cell["budget"]), int(cell["smallest"]))
            if "smallest" in cell
            else Measured(_interval(cell["reward"]), _interval(cell["hits"]), float(cell["nfe"]))
            for label, cell in column.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its cells cannot be read: {type(error).__name__} {error}") from None


def _interval(values: Sequence[float]) -> Interval:
    mean, low, high, n = values
    return Interval(float(mean), float(low), float(high), int(n))
