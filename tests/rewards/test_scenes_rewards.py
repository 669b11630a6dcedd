"""Rewards of scenes: exact laws on made-up peaks, and counting on rendered pictures."""

from __future__ import annotations

import hashlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import data
from rollflow.models.scenes.grammar import KINDS, Caption, Group, parse
from rollflow.rewards.scenes.detectors import WEIGHTS, Peaks, SceneDetector
from rollflow.rewards.scenes.scenes import (
    CaptionReward,
    CountReward,
    JudgeReward,
    caption_facts,
    count_probability,
    relation_probability,
)
from rollflow.rewards.scenes.smooth_count import SmoothCountReward

CAT, DOG = list(KINDS).index("cat"), list(KINDS).index("dog")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.integers(0, 7))
@pytest.mark.slow
def test_count_probability_is_the_sum_over_subsets(probabilities: list[float], count: int) -> None:
    count = min(count, len(probabilities))
    exact = 0.0
    for chosen in itertools.combinations(range(len(probabilities)), count):
        exact += math.prod(p if i in chosen else 1 - p for i, p in enumerate(probabilities))
    found = count_probability(torch.tensor([probabilities], dtype=torch.float64), torch.tensor([count]))
    assert float(found) == pytest.approx(exact, abs=1e-12)


def peaks(places: dict[int, list[tuple[float, float]]], logit: float = 8.0) -> Peaks:
    """One picture with certain objects at (x, y)."""
    logits, x, y = torch.full((1, len(KINDS), 6), -30.0), torch.rand(1, len(KINDS), 6), torch.rand(1, len(KINDS), 6)
    for kind, spots in places.items():
        for i, (u, v) in enumerate(spots):
            logits[0, kind, i], x[0, kind, i], y[0, kind, i] = logit, u, v
    return Peaks(logits, x, y)


@pytest.mark.parametrize(
    ("relation", "cat", "dog"),
    [
        ("left of", (0.2, 0.5), (0.8, 0.5)),
        ("right of", (0.8, 0.5), (0.2, 0.5)),
        ("above", (0.5, 0.2), (0.5, 0.8)),
        ("below", (0.5, 0.8), (0.5, 0.2)),
    ],
)
def test_relations_hold_where_they_should_and_nowhere_else(
    relation: str, cat: tuple[float, float], dog: tuple[float, float]
) -> None:
    seen = peaks({CAT: [cat], DOG: [dog]})
    groups = (Group(1, "cat"), Group(1, "dog"))
    for asked in ("left of", "right of", "above", "below"):
        probability = float(relation_probability(seen, seen.probability, 0, Caption(groups, asked)))
        if asked == relation:
            assert probability > 0.99
        elif (asked in ("left of", "right of")) == (relation in ("left of", "right of")):
            assert probability < 0.01
        else:
            assert probability == pytest.approx(0.5)


def test_caption_facts_are_one_a_count_and_one_a_relation() -> None:
    seen = peaks({CAT: [(0.1, 0.5), (0.2, 0.5)], DOG: [(0.9, 0.5)]})
    right = caption_facts(seen, [parse("two cats to the left of one dog")])[0]
    assert len(right) == 3
    assert bool((right > 0.99).all())
    wrong = caption_facts(seen, [parse("three cats to the left of one dog")])[0]
    assert float(wrong[0]) < 0.01
    assert len(caption_facts(seen, [parse("two cats and one dog")])[0]) == 2


def test_more_wrong_is_worse_and_never_a_plateau() -> None:
    """The further the count, the lower the probability, without underflow to equal zeros."""
    seen = peaks({CAT: [(0.1 * i, 0.5) for i in range(1, 7)]})
    scores = [float(caption_facts(seen, [Caption((Group(n, "cat"),))])[0]) for n in (6, 5, 4, 3, 2, 1)]
    assert scores == sorted(scores, reverse=True)
    assert all(a > 10 * b > 0 for a, b in itertools.pairwise(scores))


class _Fixed(SceneDetector):
    """A detector whose heat map is the picture's own first channels."""

    def heat(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


def test_peaks_are_the_local_maxima_over_all_kinds() -> None:
    heat = torch.full((1, len(KINDS), 8, 8), -5.0)
    heat[0, CAT, 2, 3] = 4.0
    heat[0, CAT, 2, 4] = 3.0  # a weaker neighbour of the same kind
    heat[0, DOG, 3, 3] = 3.5  # a weaker neighbour of another kind
    heat[0, DOG, 6, 6] = 1.0
    found = _Fixed().peaks(heat)
    assert found.counts()[0].tolist() == [int(i in (CAT, DOG)) for i in range(len(KINDS))]
    assert (float(found.x[0, CAT, 0]), float(found.y[0, CAT, 0])) == (3.5 / 8, 2.5 / 8)
    assert (float(found.x[0, DOG, 0]), float(found.y[0, DOG, 0])) == (6.5 / 8, 6.5 / 8)


def rendered(count: int, seed: int) -> tuple[torch.Tensor, list[Caption]]:
    """Pictures in [0, 1] of held-out captions."""
    rng = np.random.default_rng(seed)
    scenes = [data.render(data.draw_caption(rng, held_out=True), rng) for _ in range(count)]
    pixels = data.pixels_of(scenes).float() / 255
    return pixels, [scene.caption for scene in scenes]


@pytest.mark.parametrize("reward", [CountReward, JudgeReward])
@pytest.mark.slow
def test_detectors_count_rendered_scenes(reward: type[CountReward] | type[JudgeReward]) -> None:
    """At least 98 % of rendered scenes have every count of every kind right."""
    pixels, captions = rendered(400, 3)
    truth = torch.zeros(len(captions), len(KINDS), dtype=torch.long)
    for row, caption in enumerate(captions):
        for group in caption.groups:
            truth[row, list(KINDS).index(group.kind)] = group.count
    found = torch.cat([reward().counts(part) for part in pixels.split(100)])  # type: ignore[no-untyped-call]
    assert float((found == truth).all(1).float().mean()) >= 0.98


@pytest.mark.slow
def test_rewards_agree_with_what_is_drawn() -> None:
    pixels, captions = rendered(64, 4)
    prompts = [str(caption) for caption in captions]
    assert float((CountReward().score(pixels, prompts) == 0).double().mean()) > 0.95
    true = CaptionReward().score(pixels, prompts)
    false = CaptionReward().score(pixels, [str(_one_more(caption)) for caption in captions])
    assert float((true > false).double().mean()) > 0.95
    assert bool(((true > 0) & (true <= 1)).all())


def _one_more(caption: Caption) -> Caption:
    """The same with one object more, or one less than eight, of the first kind."""
    first = caption.groups[0]
    changed = Group(first.count + 1 if first.count < 8 else 7, first.kind)
    return Caption((changed, *caption.groups[1:]), caption.relation, caption.background)


def test_the_caption_reward_has_a_gradient_in_the_picture() -> None:
    """Finite differences along the gradient: a small step up it raises the reward as much as it says."""
    pixels, captions = rendered(1, 5)
    prompts, reward = [str(_one_more(captions[0]))], CaptionReward()
    pixels.requires_grad_(True)
    score = reward.score(pixels, prompts).log()
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    assert float(gradient.norm()) > 0
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        up, down = (reward.score(pixels + sign * step, prompts).log() for sign in (1, -1))
    assert float((up - down) / 2) == pytest.approx(1e-3 * float(gradient.norm()), rel=0.1)


@pytest.mark.parametrize("reward", [CountReward, JudgeReward, CaptionReward])
def test_other_weights_set_it_apart(reward: type[CountReward | JudgeReward | CaptionReward], tmp_path: Path) -> None:
    """By what the file holds, not by where it lies."""
    content = (WEIGHTS / reward.file).read_bytes()
    told = f"{reward.name}({hashlib.sha256(content).hexdigest()[:12]})"
    (tmp_path / reward.file).write_bytes(content)
    assert reward().identity == reward(WEIGHTS).identity == reward(tmp_path).identity == told
    (tmp_path / reward.file).write_bytes(content[:-4] + bytes(4))
    assert reward(tmp_path).identity != told


class _Drawn(SmoothCountReward):
    """Made-up peaks in place of the detector's."""

    def __init__(self, found: Peaks) -> None:
        self._found = found

    def peaks(self, samples: torch.Tensor) -> Peaks:
        return Peaks(*(values.expand(len(samples), -1, -1) for values in self._found))


def test_the_smooth_count_is_the_log_probability_of_the_counts() -> None:
    """Two cats of probability p and a dog of probability q; the relation does not matter."""
    p, q = (1 / (1 + math.exp(-logit)) for logit in (2.0, 0.5))
    seen = peaks({CAT: [(0.1, 0.5), (0.9, 0.5)]}, 2.0)
    seen.logits[0, DOG, 0] = 0.5
    exact = {
        "two cats and one dog": math.log(p * p * q),
        "two cats to the left of one dog": math.log(p * p * q),
        "one cat and one dog": math.log(2 * p * (1 - p) * q),
        "one dog": math.log(q),
        "two dogs": math.log(q) - 30.0,
    }
    scores = _Drawn(seen).score(torch.zeros(len(exact), 3, 64, 64), [*exact])
    several = math.log(5)  # of the five places that might hold the other dog
    expected = [*list(exact.values())[:4], exact["two dogs"] + several]
    assert scores.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_surrogate_of_count_has_its_detector() -> None:
    reward = CountReward()
    smooth = reward.own_surrogate
    assert isinstance(smooth, SmoothCountReward)
    assert smooth is reward.own_surrogate
    assert smooth.detector is reward.detector
    assert smooth.identity == SmoothCountReward().identity
    assert JudgeReward().own_surrogate is None


def test_the_smooth_count_is_highest_where_the_count_is_right() -> None:
    """Pictures of one to five cats: each is the best of all for its own number, and no two are equal."""
    rng = np.random.default_rng(6)
    numbers = ("one cat", "two cats", "three cats", "four cats", "five cats")
    scenes = [data.render(parse(caption), rng) for caption in numbers]
    pixels, reward = data.pixels_of(scenes).float() / 255, SmoothCountReward()
    table = torch.stack([reward.score(pixels, [caption] * 5) for caption in numbers])
    assert table.argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert len(set(table.flatten().tolist())) == 25
