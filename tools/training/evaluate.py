"""Compare the embedded networks with their targets: python tools/training/evaluate.py

Writes docs/results/scenes.md and the scores of the model card.

There are 500 held-out prompts of one to eight objects, and the held-out judge counts. Everything is seeded; intervals
are 95 % bootstraps over prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import theilslopes
from torch import Tensor

import data
from rollflow.bench.intervals import Interval, bootstrap, rank_correlation
from rollflow.bench.suites.difficulty import held_out_captions
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import Euler
from rollflow.engine import Engine, Job, Observer, Result, Spending, Task
from rollflow.models import MODELS, FlowModel
from rollflow.models.scenes import Caption, parse
from rollflow.models.scenes.grammar import KINDS
from rollflow.requests import Asking, Reward
from rollflow.rewards import RewardModel
from rollflow.rewards.scenes.scenes import CaptionReward, CountReward, JudgeReward
from rollflow.sampler import Sampler
from rollflow.search import BestOfN, Finished, Propagator, Search
from rollflow.search.propagator import Progress

REPORT = Path(__file__).parents[2] / "docs/results/scenes.md"
CARD = Path(__file__).parents[2] / "src/rollflow/models/scenes/CARD.md"
ESTIMATE_LEVELS = (0.75, 0.5)
SMALLEST_OBJECT = 25
"""Smallest number of pixels of a connected region that counts as an object."""


class Samples(Observer):
    """Finished samples, and the prompt of each."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def completed(self, job: Job, result: Result) -> None:
        self.of[job.task.prompt] = result.sample


def plain_samples(model: FlowModel, judge: JudgeReward, captions: Sequence[Caption], steps: int, seed: int) -> Tensor:
    """Make one finished sample per caption by the linear ODE, (N, 3, 64, 64)."""
    sampler, samples = Sampler(interpolant=Linear(), kernel=Euler(), steps=steps, finish=True), Samples()
    jobs = [Job(Task(model, str(c), judge), BestOfN(), steps, seed + i, sampler) for i, c in enumerate(captions)]
    Engine(96, [samples]).run(jobs)
    return torch.stack([samples.of[str(caption)] for caption in captions])


def right(judge: JudgeReward, samples: Tensor, captions: Sequence[Caption]) -> list[float]:
    """Return 1 for each sample in which all requested counts are right, else 0."""
    return [float(r == 0) for r in judge.score(samples, [str(caption) for caption in captions])]


def background(picture: Tensor) -> Tensor:
    """Estimate the colour (3, H, 1) of a picture's background, which is shaded linearly from top to bottom.

    A line through the medians of the rows, by Theil and Sen, so that rows full of objects do not matter.
    """
    rows = picture.median(dim=2).values.numpy()
    height = np.arange(rows.shape[1])
    lines = [theilslopes(row, height) for row in rows]
    return torch.from_numpy(np.stack([line.intercept + line.slope * height for line in lines]))[:, :, None].float()


def recognised(judge: JudgeReward, samples: Tensor) -> list[float]:
    """Return for every drawn object whether the judge recognises any kind in it.

    A drawn object is a connected region that differs from the background; parts that are up to four pixels apart, such
    as the blossom and the leaves of a flower, count as one.
    """
    found: list[float] = []
    near = np.ones((5, 5), bool)
    for part in torch.split(samples, 64):
        peaks = judge.detector.peaks(part)
        for row, picture in enumerate(part):
            drawn = ((picture - background(picture)).abs().amax(0) > 0.15).numpy()
            regions, count = ndimage.label(ndimage.binary_dilation(drawn, near))
            seen = peaks.logits[row] > 0
            places = zip(peaks.y[row][seen].tolist(), peaks.x[row][seen].tolist(), strict=True)
            marked = {int(regions[int(y * data.SIDE), int(x * data.SIDE)]) for y, x in places}
            sizes = ndimage.sum_labels(drawn, regions, range(1, count + 1))
            found += [float(r in marked) for r, size in enumerate(sizes, 1) if size >= SMALLEST_OBJECT]
    return found


@dataclass(frozen=True)
class Watched(Search):
    """Independent trajectories whose clean estimates are scored at every step; nothing is selected.

    Args:
        trajectories: Number of trajectories.
    """

    trajectories: int
    name = "watched"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        rows, zeros = range(self.trajectories), [0] * self.trajectories
        particles = yield from propagator.start(rows, zeros)
        for step in range(1, propagator.dynamics.transitions + 1):
            particles = yield from propagator.advance(particles, step, rows, zeros)
        return (yield from propagator.finish(particles))


class Estimates(Observer):
    """Clean estimates nearest to the requested noise levels, and finished samples, with their prompts."""

    def __init__(self) -> None:
        self.at: dict[float, list[Tensor]] = {}

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self.at.setdefault(round(request.noise_level, 4), []).append(request.x0)


def correlations(model: FlowModel, judge: JudgeReward, captions: Sequence[Caption], each: int) -> list[str]:
    """Format the rank correlations of the searches' rewards with the judge, on the same pictures.

    The judge only counts, whereas ``caption`` includes the relation, so it is also shown for captions without it.
    """
    sampler = Sampler(interpolant=Linear(), kernel=Euler(), steps=20, finish=True)
    estimates = Estimates()
    search = Watched(each)
    nfe = search.smallest_nfe(sampler.bind(model))
    jobs = [Job(Task(model, str(caption), judge), search, nfe, i, sampler) for i, caption in enumerate(captions)]
    Engine(96, [estimates]).run(jobs)
    asked = [str(caption) for caption in captions]
    counts = [str(replace(caption, relation="and")) for caption in captions]
    rewards: list[tuple[str, RewardModel, list[str]]] = [
        ("caption", CaptionReward(), asked),
        ("caption, counts alone", CaptionReward(), counts),
        ("count", CountReward(), asked),
    ]
    lines = []
    for level in (min(estimates.at), *ESTIMATE_LEVELS):
        kind = "last estimates" if level == min(estimates.at) else f"clean estimates at t = {level}"
        pictures = [model.decode(x0) for x0 in estimates.at[level]]
        judged = [judge.score(some, [prompt] * each).tolist() for some, prompt in zip(pictures, asked, strict=True)]
        for name, reward, prompts in rewards:
            with torch.no_grad():
                given = [reward.score(some, [p] * each).tolist() for some, p in zip(pictures, prompts, strict=True)]
            within = [rank_correlation(*pair) for pair in zip(given, judged, strict=True)]
            known = [rho for rho in within if rho is not None]
            pooled = rank_correlation(list(chain(*given)), list(chain(*judged)))
            lines.append(f"| {kind} | {name} | {pooled:.3f} | {bootstrap(known)} | {len(known)} |")
    return lines


def rendered_accuracy(count: int) -> list[str]:
    """Format the accuracy of both detectors on rendered scenes: the share with the right counts of all kinds."""
    rng = np.random.default_rng(77)
    scenes = [data.render(data.draw_caption(rng, held_out=True), rng) for _ in range(count)]
    pixels = data.pixels_of(scenes).float() / 255
    truth = torch.stack([torch.bincount(torch.from_numpy(s.kinds), minlength=len(KINDS)) for s in scenes])
    lines = []
    for reward in (CountReward(), JudgeReward()):
        found = torch.cat([reward.counts(part) for part in torch.split(pixels, 128)])
        lines.append(f"| {reward.name} | {bootstrap((found == truth).all(1).double().numpy()).percent()} |")
    return lines


def by_total(rights: list[float], captions: Sequence[Caption]) -> dict[int, Interval]:
    totals = sorted({caption.total for caption in captions})
    return {
        total: bootstrap([r for r, caption in zip(rights, captions, strict=True) if caption.total == total])
        for total in totals
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--correlation-prompts", type=int, default=40)
    given = parser.parse_args()
    judge = JudgeReward()
    captions = held_out_captions(given.prompts, seed=5, totals=(1, 8))
    assert all(parse(str(caption)).held_out for caption in captions)
    small = [i for i, caption in enumerate(captions) if caption.total <= 4]
    lines = [
        "# The embedded networks, measured",
        "",
        f"Written by `python tools/training/evaluate.py`: {given.prompts} held-out prompts of 1 to 8 objects "
        f"({len(small)} of them with up to four), plain samples (linear ODE), one seed each; counts by the held-out "
        "judge; 95 % bootstrap intervals over prompts.",
        "",
        "| model | steps | all counts right, up to four objects | all counts right, all | objects recognised |",
        "|---|---|---|---|---|",
    ]
    totals = {}
    for model_class, steps in [(m, n) for m in MODELS.values() for n in ((10,) if m.few_step else (25, 10))]:
        model = model_class()
        samples = plain_samples(model, judge, captions, steps, seed=100)
        rights = right(judge, samples, captions)
        name = f"{model.name}, {steps} steps"
        totals[name] = by_total(rights, captions)
        few, known = bootstrap([rights[i] for i in small]), bootstrap(recognised(judge, samples))
        shares = (few, bootstrap(rights), known)
        lines.append(f"| {model.name} | {steps} | " + " | ".join(share.percent() for share in shares) + " |")
        print(lines[-1], flush=True)
    lines += ["", "All counts right by the number of objects asked for:", ""]
    numbers = list(next(iter(totals.values())))
    lines += ["| model | " + " | ".join(map(str, numbers)) + " |", "|---" * (len(numbers) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row[n].percent() for n in numbers) + " |" for name, row in totals.items()]
    lines += ["", "Detectors on 2,000 rendered held-out scenes, all counts of all kinds right:", ""]
    lines += ["| detector | accuracy |", "|---|---|", *rendered_accuracy(2000)]
    lines += [
        "",
        f"Rank correlation (Spearman) of the rewards with the held-out judge on the same pictures, "
        f"{given.correlation_prompts} prompts, 16 trajectories each. The judge counts, with ties wherever two "
        "pictures are equally wrong; `caption` has none, and asks for the prompt's relation too unless it is left out:",
    ]
    for model in (model_class() for model_class in MODELS.values()):
        lines += [
            "",
            f"{model.name}:",
            "",
            "| pictures | reward | pooled | within a prompt | prompts |",
            "|---|---|---|---|---|",
        ]
        lines += correlations(model, judge, captions[: given.correlation_prompts], 16)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n")
    card = CARD.read_text()
    CARD.write_text(card[: card.index("## Scores")] + "\n".join(["## Scores", *lines[1:]]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
