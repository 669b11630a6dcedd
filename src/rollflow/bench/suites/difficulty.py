"""Grading of prompts by the accuracy of plain samples: a suite that these solve leaves a search nothing to do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rollflow.bench.suites.load import Item, Suite, lines_of
from rollflow.checks import refused
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
"""Bounds on the share of plain samples with all counts right, by difficulty."""

TOTALS = (2, 16)
"""Smallest and largest total number of objects of a candidate."""

PATIENCE = 20_000
"""Number of consecutive captions without a new one after which drawing stops."""

VERSION = 2
"""Version of the grading; version 1 did not confirm hard prompts by more samples."""


class Graded(NamedTuple):
    """A prompt and its difficulty.

    Args:
        prompt: Text of the prompt.
        accuracy: Share of its plain samples that have all counts right.
    """

    prompt: str
    accuracy: float


def held_out_captions(
    count: int, seed: int, totals: tuple[int, int] = TOTALS, known: Collection[str] = ()
) -> list[Caption]:
    """Draw distinct captions from the tenth that training never saw, cycling through the total numbers of objects.

    Args:
        count: Number of captions.
        seed: Seed of the draws.
        totals: Smallest and largest total number of objects; of a single object there are few captions.
        known: Captions that are not drawn.

    Raises:
        BadSetting: If the count is below 1, the seed negative, the totals are not among 1, ..., 16, or there are fewer
            captions.
    """
    if count < 1 or seed < 0:
        raise BadSetting(f"expected 1 or more captions and a seed of 0 or more, got {count} and {seed}")
    if not 1 <= totals[0] <= totals[1] <= TOTALS[1]:
        raise refused("totals", f"a smallest and a largest total number of objects, from 1 to {TOTALS[1]}", totals)
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
        if caption.held_out and caption not in captions and str(caption) not in known:
            captions[caption], drawn = None, 0
        if drawn > PATIENCE:
            raise BadSetting(f"cannot draw {count} distinct captions, only {len(captions)}; ask for fewer")
    return list(captions)


class _Right(Observer):
    """Records by prompt whether each finished sample's reward was perfect: 1.0 or 0.0."""

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
    """Return for every prompt whether each seed's plain sample (linear ODE, finished) has all counts right: 1.0 or 0.0.

    Args:
        model: Flow model to sample from.
        judge: Reward that is 0 if all counts are right.
        prompts: Prompts to sample.
        seeds: Seeds of the samples, one sample each.
        steps: Number of steps of a sample.
        max_rows: Largest number of rows in a call of the model.
    """
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
    totals: tuple[int, int] = TOTALS,
    known: Collection[str] = (),
) -> dict[str, list[Graded]]:
    """Grade held-out candidates by plain samples and sort them by difficulty.

    A few samples without success do not show that a prompt is hard: of prompts with a success rate of 1 in 10, one in
    five has none in sixteen samples. Hard prompts are therefore sampled again, and graded by all of their samples.

    Grading uses seeds from 10,000 up, so that later measurements of each difficulty are independent of it.

    Args:
        model: Flow model to sample from.
        judge: Reward that is 0 if all counts are right.
        candidates: Number of held-out captions to grade.
        samples: Number of samples per candidate.
        confirming: Number of further samples for each hard candidate.
        per_difficulty: Largest number of prompts of each difficulty.
        steps: Number of steps of a sample.
        seed: Seed that candidates are drawn with.
        totals: Smallest and largest total number of objects of a candidate.
        known: Prompts that are no candidates.

    Raises:
        BadSetting: If ``confirming`` is negative or another number is below 1.
    """
    for what, number, least in (
        ("candidates", candidates, 1),
        ("samples", samples, 1),
        ("confirming samples", confirming, 0),
        ("prompts per difficulty", per_difficulty, 1),
        ("steps", steps, 1),
    ):
        if number < least:
            raise BadSetting(f"expected at least {least} {what}, got {number}")

    def right(prompts: Sequence[str], seeds: range) -> dict[str, list[float]]:
        return plain_accuracy(model, judge, prompts, seeds=seeds, steps=steps)

    prompts = [str(caption) for caption in held_out_captions(candidates, seed, totals, known)]
    end = 10_000 + samples
    at_first = right(prompts, range(10_000, end))
    doubtful = [row.prompt for row in sort_by_difficulty(at_first, len(prompts))["hard"]]
    hard: list[Graded] = []
    while doubtful and len(hard) < per_difficulty:
        batch, doubtful = doubtful[:per_difficulty], doubtful[per_difficulty:]
        more = right(batch, range(end, end + confirming))
        both = {prompt: at_first[prompt] + more[prompt] for prompt in batch}
        hard += sort_by_difficulty(both, per_difficulty)["hard"]
    return sort_by_difficulty(at_first, per_difficulty) | {"hard": hard[:per_difficulty]}


def sort_by_difficulty(right: dict[str, list[float]], per_difficulty: int) -> dict[str, list[Graded]]:
    """Return the first ``per_difficulty`` prompts of each band; prompts between the bands are dropped."""
    shares = [Graded(prompt, float(np.mean(values))) for prompt, values in right.items()]
    return {
        difficulty: [row for row in shares if low <= row.accuracy <= high][:per_difficulty]
        for difficulty, (low, high) in BANDS.items()
    }


def beside(path: Path) -> str:
    """Return the name of the file of grades that lies beside a suite."""
    return f"{path.stem}.graded.json"


def save_suite(by_difficulty: dict[str, list[Graded]], model: FlowModel, path: Path) -> None:
    """Write the graded prompts as a suite whose categories are the difficulties.

    A file ``.graded.json`` beside it holds the model's name and each prompt's share of plain samples with all counts
    right.

    Args:
        by_difficulty: Graded prompts, by difficulty.
        model: Flow model that they were graded with.
        path: Path of the suite's file.

    Raises:
        RollflowError: If there are no prompts.
        FolderError: If the folder cannot be written to, or belongs to the installed package.
    """
    if not any(by_difficulty.values()):
        raise RollflowError(
            "no prompt is easy, medium or hard by its share of correct samples, so there is no suite to write; grade "
            "more candidates"
        )
    check_folder(path.parent)
    items = tuple(Item(row.prompt, difficulty) for difficulty, rows in by_difficulty.items() for row in rows)
    suite = Suite(path.stem, f"{VERSION}, {model.name}", items)
    accuracy = {row.prompt: row.accuracy for rows in by_difficulty.values() for row in rows}
    graded = json.dumps({"model": model.name, "accuracy": accuracy}, indent=1) + "\n"
    write(path.parent, {path.name: lines_of(suite).encode(), beside(path): graded.encode()})
