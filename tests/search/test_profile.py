"""Profiles: their statistics where the answer is known, and what is refused as a file."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollflow.errors import BadSetting
from rollflow.files.own import is_own
from rollflow.search import profile as profiles
from rollflow.search.profile import MAX_BYTES, PACKAGED, Profile, packaged


def made(y: np.ndarray[Any, Any], f: np.ndarray[Any, Any], **changes: Any) -> Profile:
    """A profile of estimates y at each level at which siblings part, and finished rewards f: (P, K, n, m) both."""
    prompts, times, n, m = y.shape
    rewards = np.full((prompts, times, n, m, times + 1), np.nan, np.float32)
    for k in range(times):
        rewards[:, k, :, :, k:] = 0
        rewards[:, k, :, :, k] = y[:, k]
    rewards[..., -1] = f
    fields: dict[str, Any] = {
        "model": "model",
        "reward": "reward",
        "interpolant": "linear",
        "kernel": "ddim",
        "seed": 3,
        "prompts": tuple(f"prompt {i}" for i in range(prompts)),
        "levels": tuple(1 - k / times for k in range(times)),
        "rewards": rewards,
    }
    return Profile(**(fields | changes))


@pytest.fixture
def small() -> Profile:
    rng = np.random.default_rng(0)
    return made(rng.normal(size=(3, 2, 2, 3)), rng.normal(size=(3, 2, 2, 3)), digest="abc")


def test_the_sibling_gain_of_normal_rewards_with_a_known_covariance() -> None:
    """With y = 2 a and f = .6 a + .8 b, cov(y, f) / sd(y) is .6; parents, which differ, are no part of it."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 2000, 2, 3, 4))
    parent = 5 * rng.normal(size=(2000, 1, 3, 1))
    parent = np.concatenate([0 * parent, parent], 1)
    gains = made(parent + 2 * a, 3 * parent + 0.6 * a + 0.8 * b).gains()
    assert gains.shape == (2000, 2)
    error = gains.std(0, ddof=1) / math.sqrt(2000)
    assert (np.abs(gains.mean(0) - 0.6) < 4 * error).all()
    assert (error < 0.02).all()


def test_the_best_of_siblings_gains_what_the_sibling_gain_says() -> None:
    """kappa e(M) is the finished reward of the sibling with the best estimate, less that of any sibling."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 4000, 2, 2, 5))
    y, f = a, -0.3 * a + b
    taken = np.take_along_axis(f[:, 1], y[:, 1].argmax(-1)[..., None], -1)
    found = taken.mean() - f[:, 1].mean()
    assert abs(found - 1.1629644736 * made(y, f).gains()[:, 1].mean()) < 4 * 0.02


def test_siblings_of_equal_estimates_gain_nothing() -> None:
    f = np.random.default_rng(3).normal(size=(2, 2, 2, 3))
    gains = made(np.ones((2, 2, 2, 3)), f).gains()
    assert (gains == 0).all()
    nearly = 1 + 1e-7 * np.random.default_rng(4).normal(size=f.shape)
    assert (made(nearly, f).gains() == 0).all()


def test_all_noises_are_siblings() -> None:
    """At the first level a difference between the n groups is what is chosen among; at later ones it is not."""
    y = np.zeros((1, 2, 2, 2)) + np.array([0.0, 1.0])[None, None, :, None]
    first, second = made(y, y).gains()[0]
    assert first == pytest.approx(math.sqrt(1 / 3) / 0.921317731923561)  # sd of 0, 0, 1, 1 over c_4
    assert second == 0


def test_the_decided_share_of_nested_normal_rewards() -> None:
    """Parents of variance 2 and children of variance 1 have decided 2 / 3; without parents' differences nothing."""
    rng = np.random.default_rng(5)
    parents, children = rng.normal(size=(3000, 3, 3, 1)), rng.normal(size=(3000, 3, 3, 4))
    parents[:, 1] *= math.sqrt(2)
    parents[:, 2] = 0
    profile = made(children, parents + children)
    assert profile.decided() == pytest.approx([2 / 3, 0], abs=0.02)
    between, within = profile.mean_squares(1)
    for squares, expected in ((between, 4 * 2 + 1), (within, 1)):
        assert abs(squares.mean() - expected) < 4 * squares.std(ddof=1) / math.sqrt(3000)


def test_nothing_is_decided_of_what_is_constant() -> None:
    zeros = np.zeros((2, 2, 2, 2))
    assert np.isnan(made(zeros, zeros).decided()).all()


def test_trajectories_are_those_that_part_first(small: Profile) -> None:
    rows = small.trajectories
    assert rows.shape == (3, 6, 3)
    assert np.array_equal(rows[1], small.rewards[1, 0].reshape(6, 3).astype(np.float64))
    assert (small.parents, small.siblings) == (2, 3)


def test_a_sample_that_must_not_be_chosen_counts_as_the_lowest_of_its_prompt() -> None:
    y = np.arange(8.0).reshape(1, 2, 2, 2)
    f = y.copy()
    f[0, 1, 0, 0] = -np.inf
    lowest = f.copy()
    lowest[0, 1, 0, 0] = 0.0
    assert np.array_equal(made(y, f).gains(), made(y, lowest).gains())
    assert np.isneginf(made(y, f).rewards[0, 1, 0, 0, -1])
    with pytest.raises(BadSetting, match="no sample may be chosen"):
        made(np.full_like(y, -np.inf), np.full_like(y, -np.inf), rewards=_lost(y))


def _lost(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rewards = made(y, y).rewards
    return np.where(np.isfinite(rewards), -np.inf, rewards).astype(np.float32)


def same(ours: Profile, theirs: Profile) -> bool:
    return all(
        np.array_equal(getattr(ours, name), getattr(theirs, name), equal_nan=name == "rewards")
        for name in Profile.__dataclass_fields__
    )


def test_a_file_holds_it_all(small: Profile, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(small.to_bytes())
    assert same(Profile.load(path), small)
    assert Profile.load(path).to_bytes() == small.to_bytes()
    assert is_own(path)
    with np.load(path) as arrays:
        assert json.loads(arrays["about"].item())["prompts"] == ["prompt 0", "prompt 1", "prompt 2"]
        assert np.array_equal(arrays["rewards"], small.rewards, equal_nan=True)


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def about(profile: Profile, **changes: Any) -> Any:
    with np.load(io.BytesIO(profile.to_bytes())) as arrays:
        fields = json.loads(arrays["about"].item()) | changes
    return np.array(json.dumps({name: value for name, value in fields.items() if value is not ...}).encode())


def huge(profile: Profile) -> bytes:
    """A small file of an array that says it has 10^15 numbers."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "<f4", "fortran_order": False, "shape": (1000, 1000, 1000, 1000, 1000)}
    )
    file = io.BytesIO(archive(about=about(profile)))
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr("rewards.npy", member.getvalue())
    return file.getvalue()


def bomb(profile: Profile) -> bytes:
    file = io.BytesIO(archive(about=about(profile)))
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr("rewards.npy", bytes(MAX_BYTES), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def odd(profile: Profile) -> bytes:
    """An archive whose member is no array, which NumPy reads as bytes."""
    file = io.BytesIO(archive(about=about(profile)))
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr("rewards.npy", b"text")
    return file.getvalue()


WRONG: dict[str, tuple[Callable[[Profile], bytes], str]] = {
    "empty": (lambda p: b"", "not a zip file"),
    "text": (lambda p: b"a profile", "not a zip file"),
    "cut short": (lambda p: p.to_bytes()[:-40], "not a zip file"),
    "a bit flipped": (
        lambda p: p.to_bytes()[:-200] + b"\0" + p.to_bytes()[-199:],
        "Bad CRC-32|Error -3|Overlapped|bad",
    ),
    "other arrays": (lambda p: archive(a=np.zeros(3)), "about"),
    "another version": (lambda p: archive(about=about(p, format="rollflow profile 2"), rewards=p.rewards), "profile 2"),
    "no JSON": (lambda p: archive(about=np.array(b"{"), rewards=p.rewards), "cannot be read"),
    "a list": (lambda p: archive(about=np.array(b"[1]"), rewards=p.rewards), "its format is"),
    "numbers": (lambda p: archive(about=np.zeros(3), rewards=p.rewards), "does not say what it is of"),
    "a field missing": (lambda p: archive(about=about(p, kernel=...), rewards=p.rewards), "lacks kernel"),
    "a wrong field": (lambda p: archive(about=about(p, seed="x"), rewards=p.rewards), "seed of a profile"),
    "rising levels": (lambda p: archive(about=about(p, levels=[0.5, 1]), rewards=p.rewards), "levels of a profile"),
    "no levels": (lambda p: archive(about=about(p, levels=5), rewards=p.rewards), "levels of a profile"),
    "a prompt too few": (lambda p: archive(about=about(p, prompts=["a"]), rewards=p.rewards), "have type float32"),
    "float64": (lambda p: archive(about=about(p), rewards=p.rewards.astype(np.float64)), "have type float64"),
    "flat": (lambda p: archive(about=about(p), rewards=p.rewards.ravel()), "have type float32"),
    "a NaN": (lambda p: archive(about=about(p), rewards=p.rewards * np.float32(np.nan)), "must be NaN before"),
    "a pickle": (lambda p: archive(about=about(p), rewards=np.array([{}], object)), "allow_pickle|[Oo]bject arrays"),
    "huge": (huge, "cannot be read"),
    "a bomb": (bomb, "bytes, more than"),
    "no array": (odd, "rewards of a profile must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_one_line(name: str, small: Profile, tmp_path: Path) -> None:
    content, says = WRONG[name]
    path = tmp_path / "a.npz"
    path.write_bytes(content(small))
    with pytest.raises(BadSetting, match=says) as refusal:
        Profile.load(path)
    assert "cannot be read as a profile" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Profile) -> None:
    with pytest.raises(BadSetting, match="No such file or directory"):
        Profile.load(tmp_path / "none.npz")
    with pytest.raises(BadSetting, match="not a regular file"):
        Profile.load(tmp_path)
    (tmp_path / "large.npz").write_bytes(small.to_bytes())
    monkeypatch.setattr(profiles, "MAX_BYTES", 100)
    with pytest.raises(BadSetting, match="at most 100 bytes"):
        Profile.load(tmp_path / "large.npz")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": ""}, "model of a profile is empty"),
        ({"kernel": 3}, "kernel of a profile"),
        ({"seed": -1}, "seed of a profile"),
        ({"prompts": "abc"}, "prompts of a profile"),
        ({"levels": (1.2, 0.5)}, "levels of a profile"),
        ({"levels": (1.0, 0.0)}, "levels"),
        ({"digest": None}, "digest of a profile"),
        ({"rewards": [1.0]}, "rewards of a profile"),
        ({"rewards": np.zeros((3, 2, 2, 3, 3), np.float32)}, "must be NaN before"),
        ({"rewards": np.zeros((3, 2, 1, 3, 3), np.float32)}, "parents >= 2"),
        ({"rewards": np.zeros((3, 2, 2, 1, 3), np.float32)}, "siblings >= 2"),
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, Any], says: str, small: Profile) -> None:
    with pytest.raises(BadSetting, match=says):
        replace(small, **changes)


def test_packaged_profiles_are_found_by_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Profile
) -> None:
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "model-reward.npz", tmp_path / "in" / "model-reward.npz"):
        path.write_bytes(small.to_bytes())
    monkeypatch.setattr(profiles, "PACKAGED", tmp_path / "in")
    packaged.cache_clear()
    try:
        found = packaged("model", "reward")
        assert found is not None
        assert same(found, small)
        for model, reward in (("model", "other"), ("../model", "reward"), ("", "reward"), ("x" * 5000, "reward")):
            assert packaged(model, reward) is None
    finally:
        packaged.cache_clear()


def test_those_of_the_package_are_what_they_are_called() -> None:
    for path in PACKAGED.glob("*.npz"):
        profile = Profile.load(path)
        assert path.stem == f"{profile.model}-{profile.reward}"
        assert packaged(profile.model, profile.reward) is not None
