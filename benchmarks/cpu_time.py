"""CPU time of an NFE, by part, against a plain loop: python benchmarks/cpu_time.py

Writes docs/results/cpu-time.md. Everything runs on one thread of this processor. The contenders of a job take turns, so
that a drift of the machine's speed reaches all of them, and are compared within each turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from plain_loops import STEPS, Loop, rbf, svdd
from rollflow.api import load_model
from rollflow.bench.intervals import Interval, interval
from rollflow.bench.suites.load import load
from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, Task
from rollflow.models import FlowModel
from rollflow.rewards import REWARDS, RewardModel
from rollflow.sampler import Sampler
from rollflow.search import SEARCHES

REPORT = Path(__file__).parents[1] / "docs/results/cpu-time.md"
DTYPES = "float32", "bfloat16"
PARTS = "velocity", "decode", "score"
TITLES = "velocity", "decoding", "reward"
ROWS = 1, 8, 32, 64


class Workload(NamedTuple):
    """Jobs that are measured together.

    Args:
        name: Name in the table.
        search: Search, as text.
        prompts: Number of prompts.
        nfe: NFE of each.
        plain: The same search as a plain loop.
    """

    name: str
    search: str
    prompts: int
    nfe: int
    plain: Callable[..., float]


WORKLOADS = (
    Workload("one RBF job", "rbf(initial=10)", 1, 60, partial(rbf, initial=10)),
    Workload("one SVDD job", "svdd", 1, 60, svdd),
    Workload("32 prompts, RBF", "rbf(initial=2)", 32, 24, partial(rbf, initial=2)),
)


class Networks(NamedTuple):
    """A model and a reward of one dtype."""

    model: FlowModel
    reward: RewardModel


class Measured(NamedTuple):
    """CPU time and results of one turn.

    Args:
        total: Seconds of an NFE.
        parts: Seconds of an NFE in each of ``PARTS``.
        rewards: Reward of each job.
        samples: Samples of the jobs; empty for a plain loop.
    """

    total: float
    parts: dict[str, float]
    rewards: list[float]
    samples: Tensor


@contextmanager
def clocks(networks: Networks) -> Iterator[dict[str, float]]:
    """Add up the CPU time of each part while the context is open."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*args)
            finally:
                seconds[part] += time.process_time() - begun

        return call

    owners = {"velocity": networks.model, "decode": networks.model, "score": networks.reward}
    for part, owner in owners.items():
        vars(owner)[part] = timed(getattr(owner, part), part)
    try:
        yield seconds
    finally:
        for part, owner in owners.items():
            del vars(owner)[part]


def plain(networks: Networks, work: Workload, prompts: Sequence[str], seed: int) -> Measured:
    nfe, rewards = 0, []
    with torch.no_grad(), clocks(networks) as parts:
        begun = time.process_time()
        for place, prompt in enumerate(prompts):
            loop = Loop(networks.model, networks.reward, prompt, seed + place)
            rewards.append(work.plain(loop, work.nfe))
            nfe += loop.nfe
        seconds = time.process_time() - begun
    assert nfe == work.nfe * len(prompts), f"the loop of {work.name} took {nfe} NFE"
    return Measured(seconds / nfe, {part: took / nfe for part, took in parts.items()}, rewards, torch.empty(0))


def engine(networks: Networks, work: Workload, prompts: Sequence[str], seed: int) -> Measured:
    search = SEARCHES.make(work.search)
    jobs = [
        Job(
            Task(networks.model, prompt, networks.reward),
            search,
            work.nfe,
            seed + place,
            Sampler(Linear(), steps=STEPS),
        )
        for place, prompt in enumerate(prompts)
    ]
    with clocks(networks) as parts:
        begun = time.process_time()
        results = Engine().run(jobs)
        seconds = time.process_time() - begun
    nfe = sum(result.spent.nfe for result in results)
    assert nfe == work.nfe * len(prompts), f"{work.name} took {nfe} NFE"
    samples = torch.stack([result.sample for result in results])
    rewards = [result.reward for result in results]
    return Measured(seconds / nfe, {part: took / nfe for part, took in parts.items()}, rewards, samples)


CONTENDERS: dict[str, tuple[Callable[..., Measured], str]] = {
    "plain loop": (plain, "float32"),
    "rollflow": (engine, "float32"),
    "rollflow, bfloat16": (engine, "bfloat16"),
}


def by_rows(networks: dict[str, Networks], prompt: str, turns: int) -> Iterator[str]:
    """Lines of the table of milliseconds for one row, by the number of rows in a call."""
    for rows in ROWS:
        x = torch.randn(rows, *networks["float32"].model.shape, generator=torch.Generator().manual_seed(rows))
        t, texts = torch.full((rows,), 0.7, dtype=torch.float64), [prompt] * rows
        took: dict[tuple[str, str], list[float]] = {}
        for turn in range(turns + 1):
            for dtype, (model, reward) in networks.items():
                condition = [model.encode(prompt)] * rows
                with torch.no_grad(), clocks(networks[dtype]) as seconds:
                    model.velocity(x, t, condition)
                    reward.score(model.decode(x), texts)
                for part in PARTS if turn else ():  # the first warms up
                    took.setdefault((dtype, part), []).append(1000 * seconds[part] / rows)
        cells = [f"{np.median(took[dtype, part]):.2f}" for dtype in networks for part in PARTS]
        yield f"| {rows} | {' | '.join(cells)} |"


def same_states(networks: dict[str, Networks], prompts: Sequence[str]) -> tuple[np.ndarray[Any, Any], ...]:
    """Rewards by each dtype of the clean estimates at the same states, those of float32 trajectories of the ODE."""
    exact = networks["float32"].model
    x = torch.randn(len(prompts), *exact.shape, generator=torch.Generator().manual_seed(0))
    conditions, rewards = [exact.encode(prompt) for prompt in prompts], dict[str, list[Tensor]]()
    with torch.no_grad():
        for i in range(STEPS):
            t = torch.full((len(x),), 1 - i / STEPS, dtype=torch.float64)
            velocities = {}
            for dtype, (model, reward) in networks.items():
                velocities[dtype] = v = model.velocity(x, t, conditions)
                clean = model.decode(x - float(t[0]) * v)
                rewards.setdefault(dtype, []).append(reward.score(clean, list(prompts)))
            x = x - velocities["float32"] / STEPS
    return tuple(torch.stack(rewards[dtype]).double().numpy() for dtype in DTYPES)


def change(networks: dict[str, Networks], prompts: Sequence[str], turns: Sequence[dict[str, Measured]]) -> list[str]:
    """Lines that say what bfloat16 changes."""
    exact, rounded = same_states(networks, prompts)
    apart, judge = np.abs(rounded - exact), REWARDS.make("judge")
    ends, correct = dict[str, np.ndarray[Any, Any]](), dict[str, np.ndarray[Any, Any]]()
    for name in ("rollflow", "rollflow, bfloat16"):
        with torch.no_grad():
            again = [networks["float32"].reward.score(turn[name].samples, list(prompts)) for turn in turns]
            right = [judge.score(turn[name].samples, list(prompts)) == 0 for turn in turns]
        ends[name], correct[name] = (torch.cat(values).double().numpy() for values in (again, right))
    reward, found = ends["rollflow, bfloat16"], correct["rollflow, bfloat16"]
    seen = np.abs(np.concatenate([turn["rollflow, bfloat16"].rewards for turn in turns]) - reward)
    gains, others = reward - ends["rollflow"], found - correct["rollflow"]
    times = f"{spearmanr(exact.ravel(), rounded.ravel()).statistic:.4f}"
    last = f"{spearmanr(exact[-1], rounded[-1]).statistic:.4f}"
    states = f"{exact.size} states ({len(prompts)} trajectories, {STEPS} times)"
    moved = f"{100 * np.mean(np.abs(gains) > 0.01):.0f} %"
    return [
        f"- The same {states}: rewards of clean estimates differ by {apart.mean():.4f} on average and by",
        f"  {apart.max():.3f} at most; their rank correlation (Spearman) is {times}, and {last} at the last time.",
        f"- The same finished samples: rewards differ by {seen.mean():.4f} on average and by {seen.max():.3f} at most.",
        f"- Whole jobs, {len(gains)} ({WORKLOADS[-1].name}): {moved} end at a reward that differs by more than .01,",
        "  since a search decides otherwise as soon as two rewards are close, and then takes another way. The mean",
        f"  reward, in float32, changes by {shown(interval(list(gains)))}, the share of samples that the",
        f"  held-out judge finds correct by {shown(interval(list(others)))}.",
    ]


def shown(one: Interval) -> str:
    return one.text(f"{one.mean:+.3f}", f"{one.low:+.3f}, {one.high:+.3f}")


def report(name: str, turns: int, long_turns: int) -> list[str]:
    """Lines of one model."""
    networks = {
        dtype: Networks(load_model(f"{name}(dtype={dtype})"), REWARDS.make(f"caption(dtype={dtype})"))
        for dtype in DTYPES
    }
    prompts = [item.prompt for item in load("scenes-composition").first(32).items]
    lines = [
        f"## {name}",
        "",
        "| jobs | contender | velocity | decoding | reward | the rest | sum | faster than the plain loop |",
        "|---|---|---|---|---|---|---|---|",
    ]
    last = list[dict[str, Measured]]()
    for work in WORKLOADS:
        measured, chosen = list[dict[str, Measured]](), prompts[: work.prompts]
        for turn in range(long_turns if work.prompts > 1 else turns):
            took = {}
            for contender, (run, dtype) in CONTENDERS.items():
                if turn == 0:
                    run(networks[dtype], work, chosen[:1], 0)  # warms up
                took[contender] = run(networks[dtype], work, chosen, 1000 * turn)
            measured.append(took)
            print(f"{name}: {work.name}, turn {turn + 1}", file=sys.stderr)
        for contender in CONTENDERS:
            totals = np.array([turn[contender].total for turn in measured])
            parts = [np.median([turn[contender].parts[part] for turn in measured]) for part in PARTS]
            ratios = np.array([turn["plain loop"].total for turn in measured]) / totals
            cells = [f"{1000 * part:.2f}" for part in (*parts, np.median(totals) - sum(parts), np.median(totals))]
            told = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
            jobs = f"{work.name}, {work.nfe} NFE" + (" each" if work.prompts > 1 else "")
            lines.append(f"| {jobs} | {contender} | {' | '.join(cells)} | {told} |")
        last = measured
    return [
        *lines,
        "",
        "Milliseconds of CPU time per row, by the number of rows in a call:",
        "",
        f"| rows | {' | '.join(f'{part}, {dtype}' for dtype in DTYPES for part in TITLES)} |",
        "|---" * (1 + len(DTYPES) * len(PARTS)) + "|",
        *by_rows(networks, prompts[0], turns),
        "",
        "What bfloat16 changes:",
        "",
        *change(networks, prompts, last),
        "",
    ]


def processor() -> str:
    """Name of the processor and whether it has AMX, if the system tells."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "an unknown processor"
    name = next((line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")), "")
    return f"{name} ({'with' if 'amx_bf16' in told else 'without'} AMX)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["scenes-base"])
    parser.add_argument("--turns", type=int, default=3, help="turns of the single jobs")
    parser.add_argument("--long-turns", type=int, default=2, help="turns of the 32 prompts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# CPU time of an NFE",
        "",
        f"Written by `{' '.join(['python benchmarks/cpu_time.py', *sys.argv[1:]])}`: one thread of",
        f"{processor()}, torch {torch.__version__}, reward `caption`.",
        f"Milliseconds of CPU time per NFE, medians over turns ({given.turns} of single jobs, {given.long_turns} of 32",
        "prompts), in which the contenders follow one another. The last column is the median of the ratios within",
        "each turn, with the smallest and the largest. The plain loop (`benchmarks/plain_loops.py`) is what a",
        "straightforward script does: prompts and chains one after another, each candidate decoded and scored alone.",
        "",
    ]
    for name in given.models:
        lines += report(name, given.turns, given.long_turns)
    REPORT.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
