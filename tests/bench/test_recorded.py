"""Recorded rewards as a model: the real searches against closed forms and plain loops over the matrix."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.refusals import refused

from rollflow.bench.equal_reward import needed
from rollflow.bench.probes.recorded import Recording, check_replayable
from rollflow.bench.probes.recorded_table import (
    affordable,
    best_of_n,
    replayed,
    replayed_designed,
)
from rollflow.cli import main
from rollflow.engine import Engine, completed
from rollflow.errors import BadSetting
from rollflow.particles.rng import Noise
from rollflow.search import OWN, SVDD, Beam, BestOfN, Halving
from rollflow.search.profile import Profile


def matrix(prompts: int = 3, trajectories: int = 6, steps: int = 4, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(prompts, trajectories, steps + 1))


def order(recording: Recording, prompt: int, seed: int) -> list[int]:
    """The recorded trajectories in the order in which a job begins them, by the ranks of its first noises."""
    noise = Noise(prompt + recording.prompts * seed, 0, (2,), torch.float64)
    first = noise.normals(0, range(recording.trajectories), [0] * recording.trajectories)[:, 0]
    return [int(rank) for rank in first.argsort().argsort()]


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    recording = Recording.of(matrix())
    finished = recording.rewards[:, :, -1]
    for n in range(1, 7):
        subsets = [finished[:, list(of)].max(1) for of in itertools.combinations(range(6), n)]
        np.testing.assert_allclose(recording.best_of(n), np.mean(subsets, 0), rtol=1e-12)
    for n in (0, 7):
        with pytest.raises(BadSetting, match=f"best of 1 to 6 recorded trajectories, got {n}"):
            recording.best_of(n)


@pytest.mark.parametrize(("nfe", "n"), [(4, 1), (11, 2), (24, 6)])
def test_best_of_n_runs_on_what_was_recorded(nfe: int, n: int) -> None:
    recording = Recording.of(matrix())
    for prompt in range(3):
        jobs = [recording.job(BestOfN(), nfe, prompt, seed) for seed in range(4)]
        for seed, result in enumerate(completed(Engine().run(jobs))):
            began = order(recording, prompt, seed)[:n]
            assert result.reward == recording.rewards[prompt, began, -1].max()
            assert result.spent.nfe == 4 * n


def test_seeds_draw_without_replacement_and_evenly() -> None:
    recording = Recording.of(matrix(1, 4))
    orders = [tuple(order(recording, 0, seed)) for seed in range(2_400)]
    assert all(sorted(one) == [0, 1, 2, 3] for one in orders)
    counts = [orders.count(one) for one in itertools.permutations(range(4))]
    assert max(abs(count - 100) for count in counts) < 4.5 * math.sqrt(100)
    mean = replayed(recording, BestOfN(), [8], 100)[8][0]
    spread = float(recording.rewards[0, :, -1].std())
    assert abs(mean - float(recording.best_of(2)[0])) < 4 * spread / 10


def test_halving_sees_the_estimates_of_its_rungs() -> None:
    """Halve 6 trajectories at noise level 0.75, the second of four times, and return the best of the 3 by its end."""
    recording, search = Recording.of(matrix(2, 6)), Halving((0.75,), (0.5,))
    for prompt, seed in itertools.product(range(2), range(5)):
        [result] = completed(Engine().run([recording.job(search, 18, prompt, seed)]))
        rewards = recording.rewards[prompt, order(recording, prompt, seed)]
        alive = np.argsort(-rewards[:, 1])[:3]
        assert result.reward == rewards[alive, -1].max()
        assert result.spent.nfe == 6 * 2 + 3 * 2


def test_a_perfect_estimate_loses_nothing() -> None:
    """Where every estimate has the finished reward, halving with as many first trajectories finds the best of them."""
    rewards = np.repeat(matrix(3, 8, 1)[:, :, -1:], 5, 2)
    recording = Recording.of(rewards)
    assert affordable(recording, Halving(), [3, 8, 18, 200]) == [8, 18]
    widest = recording.job(Halving((0.75,), (0.25,)), 8 * 2 + 2 * 2, 0, 0)
    [result] = completed(Engine().run([widest]))
    assert result.reward == rewards[0, :, -1].max()
    designs = replayed_designed(recording, [20], 3)[20]
    assert (designs >= replayed(recording, BestOfN(), [20], 3)[20] - 1e-12).all()


def test_searches_that_branch_are_refused_in_words() -> None:
    with pytest.raises(BadSetting, match="svdd makes trajectories that were not recorded: it branches"):
        Recording.of(matrix()).job(SVDD(), 40, 0, 0)
    refusals = 0
    for kind in OWN:
        try:
            check_replayable(kind())
        except BadSetting:
            refusals += 1
    assert refusals == len(OWN) - 2
    with pytest.raises(BadSetting, match="drop trajectories: bon and halving"):
        check_replayable(Beam())


def test_more_trajectories_than_recorded_are_refused() -> None:
    with pytest.raises(BadSetting, match="bon begins 7 trajectories in 28 NFE, and 6 of each prompt are recorded"):
        Recording.of(matrix()).job(BestOfN(), 28, 0, 0)


def test_what_must_not_be_chosen_is_the_lowest() -> None:
    rewards = matrix(2, 3, 2)
    rewards[0, 1, 2] = -np.inf
    lowest = np.delete(rewards[0].ravel(), 5).min()
    assert Recording.of(rewards).rewards[0, 1, 2] == lowest


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((2, 3)), "shape \\(2, 3\\)"),
        (np.zeros((2, 3, 1)), "shape \\(2, 3, 1\\)"),
        (np.full((1, 2, 3), np.nan), "numbers or -inf"),
        (np.full((1, 2, 3), np.inf), "numbers or -inf"),
        (np.full((1, 2, 3), -np.inf), "with a finite one"),
        (np.array([[["a", "b"]]]), "type <U1"),
    ],
    ids=["flat", "no finished", "nan", "inf", "nothing", "text"],
)
def test_arrays_that_are_no_rewards_are_refused(array: NDArray[np.float64], why: str) -> None:
    with pytest.raises(BadSetting, match=why):
        Recording.of(array)


def test_files(tmp_path: Path) -> None:
    rewards = matrix()
    np.save(tmp_path / "a.npy", rewards)
    np.savez(tmp_path / "b.npz", scores=rewards)
    np.savez(tmp_path / "two.npz", a=rewards, b=rewards)
    (tmp_path / "text.npy").write_text("rewards")
    for name in ("a.npy", "b.npz"):
        loaded = Recording.load(tmp_path / name)
        np.testing.assert_array_equal(loaded.rewards, rewards)
        assert loaded.levels == (1.0, 0.75, 0.5, 0.25)
    for name, why in (("two.npz", "2 arrays"), ("text.npy", "cannot be read"), ("none.npy", "No such file")):
        with pytest.raises(BadSetting, match=why):
            Recording.load(tmp_path / name)
    whole = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4)).astype(np.float32)
    for k in range(3):
        whole[:, k, :, :, :k] = np.nan
    profile = Profile("model", "reward", "linear", "ode", 0, ("a", "b"), (1.0, 0.6, 0.2), whole)
    (tmp_path / "profile.npz").write_bytes(profile.to_bytes())
    loaded = Recording.load(tmp_path / "profile.npz")
    np.testing.assert_array_equal(loaded.rewards, profile.trajectories)
    assert loaded.levels == (1.0, 0.6, 0.2)
    [result] = completed(Engine().run([loaded.job(BestOfN(), 12, 1, 0)]))
    assert result.reward == profile.trajectories[1, :, -1].max()


def test_best_of_n_needs_its_own_budget_for_its_own_reward() -> None:
    exact = best_of_n(Recording.of(matrix(30, 8)), [8, 16, 32, 40])
    assert list(exact.values.keys()) == [8, 16, 32]
    equal = needed(exact.values, exact.values[16])
    assert equal is not None
    assert tuple(equal)[:3] == pytest.approx((16, 16, 16))


@pytest.mark.slow
def test_the_command_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewards = matrix(4, 8)
    np.save(tmp_path / "mine.npy", rewards)
    arguments = ["bench", "recorded", str(tmp_path / "mine.npy"), "--seeds", "2", "--out", str(tmp_path)]
    assert main([*arguments, "--budgets", "8,16", "--reference", "16"]) == 0
    text = (tmp_path / "recorded-mine.md").read_text()
    recording = Recording.of(rewards)
    assert "4 prompts, 8 trajectories of each, 4 evaluations a trajectory" in text
    assert f"| best of N, exact | {recording.best_of(2).mean():.3f} [" in text
    for label, values in (
        ("halving", replayed(recording, Halving(), [16], 2)[16]),
        ("halving, designed on the other half of the prompts", replayed_designed(recording, [16], 2)[16]),
    ):
        [line] = [line for line in text.splitlines() if line.startswith(f"| {label} | ") and line.count("|") == 4]
        assert line.split(" | ")[2].startswith(f"{values.mean():.3f} [")
    assert "| best of N, exact | 16 (n = 4) |" in text
    with Image.open(io.BytesIO((tmp_path / "recorded-mine.png").read_bytes())) as image:
        assert image.size == (1200, 600)
    capsys.readouterr()
    assert main([*arguments, "--method", "svdd"]) == 2
    assert "it branches" in refused(capsys)
    assert main([*arguments, "--budgets", "8", "--reference", "400"]) == 2
    assert "no value at 400 NFE" in refused(capsys)
