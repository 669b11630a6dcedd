"""Halving designed from recorded rewards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rollflow.errors import BadSetting, RollflowWarning
from rollflow.models.mixture.model import ToyModel
from rollflow.search import Halving
from rollflow.search.halving_design import _mean_reward, _widths, designed
from rollflow.search.profile import Profile
from rollflow.search.purpose import Purpose
from rollflow.search.rungs import Rungs

LEVELS = [1 - k / 6 for k in range(6)]


def recorded(known_from: int, prompts: int = 8, count: int = 60) -> NDArray[np.float64]:
    """Six evaluation times, whose rewards are noise before one of them and the final reward from there on."""
    rng = np.random.default_rng(3)
    final = rng.normal(size=(prompts, count, 1))
    noise = rng.normal(size=(prompts, count, 6))
    return np.concatenate([np.where(np.arange(6) < known_from, noise, final), final], 2)


@pytest.mark.parametrize("known_from", [1, 2, 3, 4])
def test_it_prunes_where_the_end_is_known_and_not_before(known_from: int) -> None:
    found = designed(recorded(known_from), 60)
    assert found.levels[0] == pytest.approx(LEVELS[known_from])
    assert known_from > 3 or found.kept[-1] <= 0.25


def test_without_early_knowledge_it_is_best_of_n() -> None:
    assert designed(recorded(6), 60) == Rungs((), ())


def test_the_levels_are_those_of_the_sampler() -> None:
    levels = [1, 0.9, 0.7, 0.4, 0.2, 0.1]
    assert designed(recorded(2), 60, levels).levels[0] == 0.7


def test_what_it_plays_is_the_expected_best() -> None:
    """Of two trajectories with final rewards 0 and 1: the best of n with replacement is 1 - 2^-n on average."""
    rewards, picks = np.array([[[0.0, 0.0], [1.0, 1.0]]]), np.random.default_rng(1).integers(2, size=(20000, 3))
    for n in (1, 2, 3):
        found, error = _mean_reward(rewards, picks, [n]), 0.5 / np.sqrt(20000)
        assert abs(found - (1 - 0.5**n)) < 4 * error


def test_the_best_of_all_is_found_by_what_its_estimates_say() -> None:
    """Three trajectories, of which the first estimate leaves the two best of it, and their ends decide."""
    rewards = np.array([[[3.0, 1.0], [2.0, 5.0], [1.0, 9.0]]])
    picks = np.array([[0, 1, 2]])
    assert _mean_reward(np.insert(rewards, 1, 0.0, axis=2), picks, [3, 2]) == 5
    assert _mean_reward(np.insert(rewards, 1, 0.0, axis=2), picks, [3, 3]) == 9
    assert _mean_reward(np.insert(rewards, 1, 0.0, axis=2), picks, [3, 1]) == 1


def test_widths_are_within_the_budget() -> None:
    for nfe in range(6, 80):
        widths = _widths(Rungs((0.5,), (0.5,)), LEVELS, nfe)
        assert nfe - 4 < sum(widths) <= nfe


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (np.zeros((2, 3)), r"that are not NaN; got shape \(2, 3\)"),
        (np.zeros((2, 3, 1)), r"got shape \(2, 3, 1\)"),
        (np.full((2, 3, 4), np.nan), "that are not NaN"),
    ],
)
def test_arrays_that_are_not_recorded_rewards(rewards: NDArray[np.float64], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        designed(rewards, 60)


def test_a_budget_or_levels_that_do_not_fit() -> None:
    with pytest.raises(BadSetting, match="nfe must be a whole number >= 6, not 5"):
        designed(recorded(1), 5)
    with pytest.raises(BadSetting, match="expected 6 noise levels, one for each evaluation time; got 2"):
        designed(recorded(1), 60, [1.0, 0.5])


def profile_file(folder: Path, known_from: int) -> Path:
    """A profile of six times whose independent trajectories are those of ``recorded``; nothing else of it matters."""
    rewards = np.full((8, 6, 6, 10, 7), np.nan)
    rewards[:, 0] = recorded(known_from).reshape(8, 6, 10, 7)
    for k in range(1, 6):
        rewards[:, k, :, :, k:] = 0
    prompts = tuple("abcdefgh")
    profile = Profile("toy", "toy", "linear", "ode", 0, prompts, tuple(LEVELS), rewards.astype(np.float32))
    path = folder / "profile.npz"
    path.write_bytes(profile.to_bytes())
    return path


def test_a_profile_decides_the_rungs(tmp_path: Path, plane: ToyModel) -> None:
    """When a job is made, for its budget; a file of another model or reward is used with a warning."""
    path = profile_file(tmp_path, 2)
    found = Halving(profile=path).prepared(Purpose(plane, ("toy",), 60))
    assert found.profile is None
    assert found.rungs[0] == pytest.approx(LEVELS[2])
    assert (found.rungs, found.kept) == designed(recorded(2).astype(np.float32), 60, LEVELS)
    assert Halving().prepared(Purpose(plane, ("toy",), 60)) == Halving()
    with pytest.warns(RollflowWarning, match="the profile is of 'toy' on toy, not of 'other' on toy"):
        assert Halving(profile=path).prepared(Purpose(plane, ("other",), 60)) == found


def test_rungs_and_a_profile_are_not_given_together(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="halving takes its rungs from its profile"):
        Halving((0.5,), (0.5,), profile=tmp_path / "none.npz")
