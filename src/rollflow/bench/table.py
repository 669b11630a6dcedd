"""The comparison of searches: every search with every dynamics on every tier, resumable, one line a finished job."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rollflow.bench.statistics import bootstrap
from rollflow.bench.suites import Suite
from rollflow.engine import Engine, Job, Observer, Result, Task
from rollflow.interpolants import VP, Linear
from rollflow.kernels import DDIM, Euler, EulerMaruyama
from rollflow.models.base import FlowModel
from rollflow.rewards.base import RewardModel
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN, RolloverBudget, Search

DYNAMICS: dict[str, Sampler] = {
    "Linear-ODE": Sampler(interpolant=Linear(), kernel=Euler()),
    "Linear-SDE": Sampler(interpolant=Linear(), kernel=EulerMaruyama()),
    "Linear-DDIM(1)": Sampler(interpolant=Linear(), kernel=DDIM(1.0)),
    "VP-SDE": Sampler(interpolant=VP(), kernel=EulerMaruyama()),
}
METHODS: dict[str, Search] = {"BestOfN": BestOfN(), "SVDD": SVDD(), "RolloverBudget": RolloverBudget()}
PLAIN = "plain sample"


@dataclass(frozen=True)
class Cell:
    """One job of the table: its row and column, and which prompt and seed."""

    method: str
    dynamics: str
    tier: str
    prompt: str
    seed: int

    @property
    def key(self) -> str:
        return json.dumps([self.method, self.dynamics, self.tier, self.prompt, self.seed])


def cells(suite: Suite, seeds: Sequence[int]) -> Iterator[Cell]:
    """All cells, seed by seed, so that an unfinished table is an unbiased one of fewer seeds; tiers are categories."""
    tiers = dict.fromkeys(item.category for item in suite.items)
    for seed in seeds:
        for tier in tiers:
            prompts = [item.prompt for item in suite.items if item.category == tier]
            for method in (PLAIN, *METHODS):
                for dynamics in DYNAMICS:
                    yield from (Cell(method, dynamics, tier, prompt, seed) for prompt in prompts)


def job(cell: Cell, model: FlowModel, reward: RewardModel, judge: RewardModel, nfe: int) -> Job:
    """The job of a cell; a plain sample is a best of one with the budget of one finished trajectory."""
    sampler, task = DYNAMICS[cell.dynamics], Task(model, cell.prompt, reward, (judge,))
    if cell.method == PLAIN:
        return Job(task, BestOfN(), BestOfN().smallest_nfe(sampler.bind(model)), cell.seed, sampler)
    return Job(task, METHODS[cell.method], nfe, cell.seed, sampler)


class Journal(Observer):
    """Appends a line of JSON for every finished job, at once."""

    def __init__(self, path: Path, cells_of: dict[int, Cell]) -> None:
        self.path = path
        self.cells_of = cells_of
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:  # a kill cut the last line short: do not write on behind it
                file.write("\n")

    def completed(self, job: Job, result: Result) -> None:
        row = {
            "key": self.cells_of[id(job)].key,
            "reward": result.reward,
            "held_out": result.held_out,
            "nfe": result.spent.nfe,
            "reward_calls": result.spent.reward_calls,
            "noise_level": result.noise_level,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a journal by key; a line cut short by a kill is passed over and its job run again."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["key"]] = row
    return rows


def run(
    wanted: Iterable[Cell],
    path: Path,
    model: FlowModel,
    reward: RewardModel,
    judge: RewardModel,
    *,
    nfe: int = 200,
    max_rows: int = 96,
    chunk: int = 240,
    minutes: float | None = None,
) -> None:
    """Run the cells that the journal lacks, ``chunk`` jobs at a time, until done or out of time."""
    begun = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    done = read(path)
    todo = [cell for cell in wanted if cell.key not in done]
    for start in range(0, len(todo), chunk):
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            return
        jobs = {cell: job(cell, model, reward, judge, nfe) for cell in todo[start : start + chunk]}
        Engine(max_rows, [Journal(path, {id(one): cell for cell, one in jobs.items()})]).run(jobs.values())


def markdown(rows: Iterable[dict[str, Any]], judge: str = "judge") -> str:
    """The table, tier by tier: means over prompts (seeds of a prompt averaged first) with bootstrap intervals."""
    grouped: dict[str, dict[tuple[str, str], dict[str, list[dict[str, Any]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in rows:
        method, dynamics, tier, prompt, _ = json.loads(row["key"])
        grouped[tier][method, dynamics][prompt].append(row)
    lines: list[str] = []
    for tier, table in grouped.items():
        prompts = len({prompt for by_prompt in table.values() for prompt in by_prompt})
        seeds = max(len(some) for by_prompt in table.values() for some in by_prompt.values())
        lines += [f"## {tier}: {prompts} prompts, {seeds} seeds", ""]
        lines += ["| method | dynamics | `count` reward | held-out reward | held-out accuracy | NFE |"]
        lines += ["|---|---|---|---|---|---|"]
        for (method, dynamics), by_prompt in table.items():
            given = bootstrap([float(np.mean([r["reward"] for r in some])) for some in by_prompt.values()])
            held = [[r["held_out"][judge] for r in some] for some in by_prompt.values()]
            held_out = bootstrap([float(np.mean(some)) for some in held])
            right = bootstrap([float(np.mean([value == 0 for value in some])) for some in held])
            nfe = np.mean([r["nfe"] for some in by_prompt.values() for r in some])
            lines.append(f"| {method} | {dynamics} | {given} | {held_out} | {right.percent()} | {nfe:.0f} |")
        lines.append("")
    return "\n".join(lines)
