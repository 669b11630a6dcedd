"""Intervals, and grading by difficulty."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rollflow.bench.intervals import bootstrap, rank_correlation
from rollflow.bench.suites import difficulty
from rollflow.bench.suites.difficulty import Graded, held_out_captions, plain_accuracy, save_suite, sort_by_difficulty
from rollflow.bench.suites.load import Item, Suite, load
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward


def toy() -> ToyModel:
    """A model with two prompts of two modes each."""
    stds = torch.tensor([0.2, 0.2])
    weights = torch.tensor([0.5, 0.5])
    return ToyModel(
        {
            "a": GaussianMixture(weights, torch.tensor([[-1.0], [1.0]]), stds),
            "b": GaussianMixture(weights, torch.tensor([[-2.0], [0.5]]), stds),
        }
    )


class Judge(ToyReward):
    """A reward that serves as a second judge."""

    name = "judge"


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(400, 80))
    covered = [found.low <= 1 <= found.high for found in (bootstrap(row, 500) for row in draws)]
    assert abs(np.mean(covered) - 0.95) < 4 * (0.95 * 0.05 / 400) ** 0.5 + 0.02  # percentile intervals run short


def test_rank_correlation_says_nothing_of_constants() -> None:
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None
    assert rank_correlation([1, 2, 3], [10, 20, 25]) == pytest.approx(1)


def test_held_out_captions_are_held_out_and_of_all_sizes() -> None:
    captions = held_out_captions(60, 0, totals=(1, 12))
    assert all(caption.held_out for caption in captions)
    assert len(set(captions)) == 60
    assert {caption.total for caption in captions} == set(range(1, 13))
    assert captions == held_out_captions(60, 0, totals=(1, 12))


@pytest.mark.slow
def test_grading_sorts_prompts_into_their_bands_and_the_suite_comes_back(tmp_path: Path) -> None:
    class Known(ToyReward):
        """A reward that is perfect for a known share of samples: those below a quantile of the first coordinate."""

        def score(self, samples: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            thresholds = torch.tensor([{"a": 0.0, "b": -9.0}[prompt] for prompt in prompts])
            return -(samples[:, 0] > thresholds).double()

    suite = sort_by_difficulty(plain_accuracy(toy(), Known(), ["a", "b"], seeds=range(100), steps=4), per_difficulty=60)
    assert [row.prompt for row in suite["easy"]] == ["a"]
    assert suite["medium"] == []
    assert suite["hard"] == [Graded("b", 0.0)]
    save_suite(suite, toy(), tmp_path / "graded.jsonl")
    assert load(str(tmp_path / "graded.jsonl")) == Suite("graded", "2, toy", (Item("a", "easy"), Item("b", "hard")))
    beside = json.loads((tmp_path / "graded.graded.json").read_text())
    assert beside == {"model": "toy", "accuracy": {"a": suite["easy"][0].accuracy, "b": 0.0}}


def test_hard_prompts_are_confirmed_by_further_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts without a success among the first samples are confirmed, and only as many as are needed."""
    prompts = [str(caption) for caption in held_out_captions(8, 3)]
    seen: dict[str, list[int]] = {}

    def accuracy(model: Any, judge: Any, some: Sequence[str], *, seeds: range, steps: int) -> dict[str, list[float]]:
        """Two prompts are always right; one is sometimes right, but for none of its first ten samples."""
        for prompt in some:
            seen.setdefault(prompt, []).extend(seeds)
        late = {prompts[0]: 0, prompts[4]: 0, prompts[1]: 10_010}
        return {prompt: [float(late.get(prompt, 1e9) <= seed) for seed in seeds] for prompt in some}

    monkeypatch.setattr(difficulty, "plain_accuracy", accuracy)
    told = difficulty.grade(
        toy(), ToyReward(), candidates=8, samples=10, confirming=30, per_difficulty=2, steps=4, seed=3
    )
    assert told == {"easy": [], "medium": [], "hard": [Graded(prompts[2], 0.0), Graded(prompts[3], 0.0)]}
    twice = [prompt for prompt in prompts if len(seen[prompt]) == 40]
    assert twice == [prompts[1], prompts[2], prompts[3], prompts[5]]
    assert all(seen[prompt] == [*range(10_000, 10_040)] for prompt in twice)


@pytest.mark.slow
def test_plain_accuracy_counts_perfect_rewards() -> None:
    class Sign(ToyReward):
        def score(self, samples: torch.Tensor, prompts: object) -> torch.Tensor:
            return (samples[:, 0] > 0).double() - 1

    right = plain_accuracy(toy(), Sign(), ["a"], seeds=range(400), steps=8)["a"]
    assert set(right) == {0.0, 1.0}
    assert abs(np.mean(right) - 0.5) < 4 * 0.5 / 20
