"""Prompts graded by what the plain sample gets right: a suite that it solves leaves a search nothing to do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollflow.bench.suites.load import Item, Suite, lines_of
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler
from rollflow.engine import Engine, Job, Observer, Result, Task, completed
from rollflow.errors import BadSetting, RollflowError
from rollflow.files.atomic import check_folder, write
from rollflow.models.base import FlowModel
from rollflow.models.scenes.grammar import BACKGROUNDS, KINDS, RELATIONS, Caption, Group
from rollflow.rewards.base import RewardModel
from rollflow.sampler import Sampler
from rollflow.search import BestOfN

BANDS: dict[str, tuple[float, float]] = {"easy": (0.30, 0.60), "medium": (0.05, 0.20), "hard": (0.0, 0.02)}
"""Share of plain samples with all counts right, by difficulty."""

PATIENCE = 20_000
"""Captions drawn in a row, none of them new, after which there are no more."""

VERSION = 2
"""Of how prompts are graded; version 1 did not confirm that hard ones are."""


class Graded(NamedTuple):
    """A prompt and the share of its plain samples that had all counts right."""

    prompt: str
    accuracy: float


def held_out_captions(count: int, seed: int, totals: tuple[int, int] = (2, 16)) -> list[Caption]:
    """Different captions of the evaluation tenth, totals tried in turn; of a single object there are but few.

    Raises:
        BadSetting: On a count below 1, a negative seed, or more captions than there are.
    """
    if count < 1 or seed < 0:
        raise BadSetting(f"expected 1 or more captions and a seed of 0 or more, got {count} and {seed}")
    rng, drawn = np.random.default_rng(seed), 0
    wanted = itertools.cycle(range(totals[0], totals[1] + 1))
    captions: dict[Caption, None] = {}
    while len(captions) < count:
        total = next(wanted)
        first = int(rng.integers(max(total - 8, 0), min(total, 8) + 1))
        counts = [n for n in (first, total - first) if n > 0]
        kinds = rng.choice(len(KINDS), size=len(counts), replace=False)
        groups = tuple(Group(n, tuple(KINDS)[kind]) for n, kind in zip(counts, kinds, strict=True))
        relation = RELATIONS[rng.integers(len(RELATIONS))] if len(groups) == 2 else "and"
        caption = Caption(groups, relation, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
        drawn += 1
        if caption.held_out and caption not in captions:
            captions[caption], drawn = None, 0
        if drawn > PATIENCE:
            raise BadSetting(f"there are no {count} different captions to be had, only {len(captions)}; ask for fewer")
    return list(captions)


class _Right(Observer):
    """Whether each finished sample's reward was perfect, by prompt."""

    def __init__(self) -> None:
        self.of: dict[str, list[float]] = {}

    def completed(self, job: Job, result: Result) -> None:
        self.of.setdefault(job.task.prompt, []).append(float(result.reward == 0))


def plain_accuracy(
    model: FlowModel,
    judge: RewardModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int,
    max_rows: int = 96,
) -> dict[str, list[float]]:
    """For every prompt, whether each seed's plain sample (linear ODE, finished) has all counts right by the judge."""
    sampler = Sampler(interpolant=Linear(), kernel=Euler(), steps=steps, finish=True)
    right = _Right()
    jobs = [Job(Task(model, prompt, judge), BestOfN(), steps, seed, sampler) for prompt in prompts for seed in seeds]
    completed(Engine(max_rows, [right], padded=True).run(jobs))
    return right.of


def grade(
    model: FlowModel,
    judge: RewardModel,
    *,
    candidates: int,
    samples: int,
    confirming: int,
    per_difficulty: int,
    steps: int,
    seed: int,
) -> dict[str, list[Graded]]:
    """Sample held-out candidates plainly and sort them by difficulty, at most ``per_difficulty`` of each.

    A few samples, none of them right, do not show that a prompt is hard: sixteen miss a chance of one in ten for one
    prompt in five. Hard prompts are therefore confirmed by ``confirming`` samples more, and graded by all of them.

    Grading uses seeds from 10,000 up, so that what is later reported of each difficulty is measured afresh.

    Raises:
        BadSetting: On a number below 1, or below 0 of ``confirming``.
    """
    for what, number, least in (
        ("candidates", candidates, 1),
        ("samples", samples, 1),
        ("confirming samples", confirming, 0),
        ("prompts of a difficulty", per_difficulty, 1),
        ("steps", steps, 1),
    ):
        if number < least:
            raise BadSetting(f"expected {least} or more {what}, got {number}")

    def right(prompts: Sequence[str], seeds: range) -> dict[str, list[float]]:
        return plain_accuracy(model, judge, prompts, seeds=seeds, steps=steps)

    prompts = [str(caption) for caption in held_out_captions(candidates, seed)]
    end = 10_000 + samples
    at_first = right(prompts, range(10_000, end))
    doubtful = [row.prompt for row in sort_by_difficulty(at_first, len(prompts))["hard"]]
    hard: list[Graded] = []
    while doubtful and len(hard) < per_difficulty:
        some, doubtful = doubtful[:per_difficulty], doubtful[per_difficulty:]
        more = right(some, range(end, end + confirming))
        hard += sort_by_difficulty({prompt: at_first[prompt] + more[prompt] for prompt in some}, per_difficulty)["hard"]
    return sort_by_difficulty(at_first, per_difficulty) | {"hard": hard[:per_difficulty]}


def sort_by_difficulty(right: dict[str, list[float]], per_difficulty: int) -> dict[str, list[Graded]]:
    """The first ``per_difficulty`` prompts of each band; prompts between the bands are in none."""
    shares = [Graded(prompt, float(np.mean(values))) for prompt, values in right.items()]
    return {
        difficulty: [row for row in shares if low <= row.accuracy <= high][:per_difficulty]
        for difficulty, (low, high) in BANDS.items()
    }


def beside(path: Path) -> str:
    """Name of the file of grades beside a suite."""
    return f"{path.stem}.graded.json"


def save_suite(by_difficulty: dict[str, list[Graded]], model: FlowModel, path: Path) -> None:
    """Write the graded prompts as a suite whose categories are the difficulties.

    Beside it, as ``.graded.json``, are the model's name and, by prompt, the share of its plain samples that had all
    counts right.

    Raises:
        RollflowError: If no prompt has any of the difficulties.
        FolderError: If the folder cannot be written to, or is the installed package's.
    """
    if not any(by_difficulty.values()):
        raise RollflowError(
            "no prompt is easy, medium or hard by its share of right samples, so there is no suite to write; grade "
            "more candidates"
        )
    check_folder(path.parent)
    items = tuple(Item(row.prompt, difficulty) for difficulty, rows in by_difficulty.items() for row in rows)
    suite = Suite(path.stem, f"{VERSION}, {model.name}", items)
    accuracy = {row.prompt: row.accuracy for rows in by_difficulty.values() for row in rows}
    graded = json.dumps({"model": model.name, "accuracy": accuracy}, indent=1) + "\n"
    write(path.parent, {path.name: lines_of(suite).encode(), beside(path): graded.encode()})
