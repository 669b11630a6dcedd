"""Measuring a profile: the siblings, the account, what is continued, and the figures."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import Judge, Redness, TinyModel

from rollflow.bench.intervals import ratio
from rollflow.bench.probes.profile import Profiling, profile_of
from rollflow.bench.probes.profile_curves import ProfilePoint, profile_curve, tail_recall
from rollflow.bench.replay import trial_of
from rollflow.bench.suites.difficulty import held_out_captions
from rollflow.bench.suites.suite import split_of
from rollflow.cli import main
from rollflow.dynamics.grids import Levels
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import DDIM, EulerMaruyama
from rollflow.engine import Engine, Job, Observer, Spending, Task
from rollflow.errors import BadSetting, RollflowError
from rollflow.models import MODELS
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Asking, Reward
from rollflow.rewards import REWARDS
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search.base import Search
from rollflow.search.profile import Profile
from rollflow.search.propagator import Finished, Progress, Propagator

SDE = Sampler(Linear(), EulerMaruyama(), steps=6, finish=True)
SIZE = {"parents": 2, "siblings": 3, "seed": 3}


def toy() -> ToyModel:
    """Two prompts, two modes each."""
    stds, weights = torch.tensor([0.2, 0.2]), torch.tensor([0.5, 0.5])
    means = {"a": torch.tensor([[-1.0], [1.0]]), "b": torch.tensor([[-2.0], [0.5]])}
    return ToyModel({prompt: GaussianMixture(weights, of, stds) for prompt, of in means.items()})


@dataclass(frozen=True)
class Independent(Search):
    """So many trajectories, scored at every step, with nothing selected."""

    count: int
    name = "independent"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        rows, zeros = range(self.count), [0] * self.count
        particles = yield from propagator.start(rows, zeros)
        for step in range(1, propagator.dynamics.sampler.steps):
            particles = yield from propagator.advance(particles, step, rows, zeros)
        return (yield from propagator.finish(particles))


class Scores(Observer):
    def __init__(self) -> None:
        self.all: list[torch.Tensor] = []

    def scored(self, job: Job, population: int, request: Reward, rewards: torch.Tensor, spent: Spending) -> None:
        self.all.append(rewards)


@pytest.mark.parametrize("sampler", [SDE, Sampler(VP(), DDIM(), steps=4, finish=True)], ids=["linear", "vp"])
def test_the_first_siblings_are_independent_trajectories(sampler: Sampler) -> None:
    """With the noise of any other search's rows; the last reward is that of the finished sample."""
    profile, scores = profile_of(toy(), ToyReward(), ["a"], sampler, **SIZE), Scores()
    nfe = Independent(6).smallest_nfe(sampler.bind(toy()))
    Engine(observers=[scores]).run([Job(Task(toy(), "a", ToyReward()), Independent(6), nfe, 3, sampler)])
    if len(scores.all) == sampler.steps:  # finished for free
        scores.all.append(scores.all[-1])
    assert np.array_equal(profile.trajectories[0], torch.stack(scores.all, 1).float().double().numpy())


def test_the_rank_correlations_are_those_of_independent_trajectories() -> None:
    """Those that 'bench signal' gave of the same trajectories, before there were siblings."""
    profile = profile_of(toy(), ToyReward(), ["a", "b"], SDE, parents=4, siblings=6, seed=3)
    found = [point.correlation.mean for point in profile_curve(profile)[1:-1] if point.correlation]
    assert found == pytest.approx(
        [0.15782608695652173, 0.6621739130434783, 0.8847826086956521, 0.9682608695652173], abs=1e-12
    )


def test_siblings_part_where_they_should() -> None:
    """Of a trajectory's own children some estimate is never the same; all go on to a finished sample."""
    rewards = profile_of(toy(), ToyReward(), ["a"], SDE, **SIZE).rewards[0]
    assert rewards.shape == (6, 2, 3, 7)
    for k in range(6):
        assert np.isnan(rewards[k, :, :, :k]).all()
        assert np.isfinite(rewards[k, :, :, k:]).all()
        assert len(np.unique(rewards[k, :, :, -1])) == 6


def test_children_have_the_parents_that_they_are_filed_under() -> None:
    """A kernel without noise carries a parent's state on, so that all its children end where it does."""
    from rollflow.dynamics.kernels import Euler

    profile = profile_of(toy(), ToyReward(), ["a"], Sampler(Linear(), Euler(), steps=4), **SIZE)
    parents = profile.rewards[0, 0].reshape(6, 5)[:2, -1]
    for k in range(1, 4):
        assert profile.rewards[0, k, :, :, -1] == pytest.approx(np.repeat(parents[:, None], 3, 1), abs=1e-6)
    assert profile.decided()[1:] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [SDE, Sampler(VP(), DDIM(), steps=3, finish=True), Sampler(Linear(), DDIM(), Levels((1.0, 0.5)), 2, finish=True)],
    ids=["linear", "vp", "levels"],
)
def test_what_is_told_is_spent(sampler: Sampler) -> None:
    profiling, spent = Profiling(("a", "b"), sampler, **SIZE), []

    class Account(Observer):
        def completed(self, job: Job, result: Any) -> None:
            spent.append(result.spent)

    told = profiling.cost(toy())
    job = Job(Task(toy(), "a", ToyReward()), profiling.search, told.nfe // 2, 3, sampler)
    Engine(observers=[Account()]).run([job])
    assert told == Spending(**{name: 2 * amount for name, amount in vars(spent[0]).items()})
    assert profiling.cost(toy(), done=1) == spent[0]
    times, family, finishing = sampler.steps, 6, sampler.bind(toy()).finish_nfe
    assert told.nfe == 2 * family * (times * (times + 1) // 2 + times * finishing)


def test_a_profile_that_was_begun_is_continued_exactly() -> None:
    whole, half = (Profiling(prompts, SDE, **SIZE) for prompts in (("a", "b"), ("a",)))
    first, second = whole.measure(toy(), ToyReward())
    [begun] = half.measure(toy(), ToyReward())
    assert begun.to_bytes() == first.to_bytes()
    [continued] = whole.measure(toy(), ToyReward(), begun)
    assert continued.to_bytes() == second.to_bytes()
    assert list(whole.measure(toy(), ToyReward(), continued)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"parents": 3}, "parents was 2, is 3"),
        ({"siblings": 2}, "siblings was 3, is 2"),
        ({"sampler": replace(SDE, kernel=DDIM())}, "kernel was sde, is ddim"),
        ({"sampler": replace(SDE, interpolant=VP())}, "interpolant was linear, is vp"),
        ({"sampler": replace(SDE, steps=7)}, "steps were 6, are 7"),
        ({"prompts": ("b",)}, "other prompts"),
        ({"sampler": replace(SDE, grid=Levels((1.0, 0.8, 0.6, 0.4, 0.3, 0.2)))}, "levels was"),
        ({"max_rows": 5}, "digest was"),
    ],
)
def test_a_profile_of_other_settings_is_not_continued(changes: dict[str, Any], says: str) -> None:
    profiling = Profiling(("a",), SDE, **SIZE)
    [begun] = profiling.measure(toy(), ToyReward())
    with pytest.raises(BadSetting, match=says):
        next(replace(profiling, **changes).measure(toy(), ToyReward(), begun))


def test_a_profile_of_another_reward_is_not_continued() -> None:
    profiling = Profiling(("a", "b"), SDE, **SIZE)
    begun = next(profiling.measure(toy(), ToyReward()))
    with pytest.raises(BadSetting, match="digest was"):
        next(profiling.measure(toy(), ToyReward(torch.ones(1)), begun))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": ()}, "at least 1 prompt"),
        ({"parents": 1}, "parents of a profile must be a whole number >= 2"),
        ({"siblings": 1}, "siblings of a profile must be a whole number >= 2"),
        ({"seed": -1}, "seed"),
        ({"max_rows": 0}, "max_rows"),
        ({"siblings": 10**5}, "ask for less"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        replace(Profiling(("a",), SDE), **changes)


def test_a_reward_that_fails_names_the_prompt() -> None:
    class Broken(ToyReward):
        def score(self, samples: torch.Tensor, prompts: object) -> torch.Tensor:
            raise OSError("gone")

    with pytest.raises(RollflowError, match=r"'a': .*gone"):
        profile_of(toy(), Broken(), ["a"], SDE, **SIZE)


def test_tail_recall_by_hand() -> None:
    """Of 40 finals the best two; of estimates the best ten."""
    f = np.arange(40.0)
    assert tail_recall(f, f) == 1
    assert tail_recall(-f, f) == 0
    half = f.copy()
    half[39] = -1
    assert tail_recall(half, f) == 0.5


def test_tail_recall_of_ties_is_an_expectation() -> None:
    f = np.arange(40.0)
    assert tail_recall(np.zeros(40), f) == pytest.approx(0.25)
    assert tail_recall(np.repeat([0.0, 1.0], 20), f) == pytest.approx(0.5)  # ten of the twenty that are best
    few = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])  # three are the best; the best quarter has room for one and a half
    assert tail_recall(few, few) == 1
    assert tail_recall(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), few) == 1
    assert tail_recall(np.array([0.0, 1.0, 2.0, 3.0, 4.0, -1.0]), few) == 1
    assert tail_recall(np.array([0.0, 5.0, 2.0, 3.0, 4.0, -1.0]), few) == pytest.approx(0.5 / 1.5)
    assert tail_recall(np.zeros(6), few) == pytest.approx(0.5)


def test_an_interval_of_a_ratio_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for n in (8, 40):
        covered = []
        for _ in range(300):
            below = rng.exponential(size=n) + 0.5
            found = ratio(0.4 * below + 0.3 * rng.normal(size=n), below, 400)
            assert found is not None
            covered.append(found.low <= 0.4 <= found.high)
        assert abs(np.mean(covered) - 0.95) < 4 * (0.95 * 0.05 / 300) ** 0.5 + 0.02
    assert ratio(np.zeros(3), np.zeros(3)) is None
    two = ratio(np.ones(2), np.array([1.0, 3.0]))
    assert two is not None
    assert two.mean == 0.5
    assert math.isnan(two.low)


def test_the_figures_of_a_profile() -> None:
    """At t = 1 every estimate is the mean and says nothing; at the last level it is the sample."""
    points = profile_curve(profile_of(toy(), ToyReward(), ["a", "b"], SDE, parents=4, siblings=6))
    assert [point.noise_level for point in points] == pytest.approx([1 - k / 6 for k in range(6)], abs=1e-6)
    first, last = points[0], points[-1]
    assert (first.correlation, first.prompts, first.gain.mean) == (None, 0, 0)
    assert first.recall is not None
    assert first.recall.mean == pytest.approx(0.25)
    assert last.correlation is not None
    assert last.recall is not None
    assert (last.correlation.mean, last.recall.mean) == pytest.approx((1, 1))
    assert last.decided is None
    shares = [point.decided.mean for point in points if point.decided is not None]
    assert len(shares) == 5
    assert shares[4] > shares[2] > shares[0]
    assert all(isinstance(point, ProfilePoint) for point in points)


@pytest.fixture
def tiny_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(MODELS, "scenes-base", TinyModel)
    for name, kind in {"caption": Redness, "judge": Judge}.items():
        monkeypatch.setitem(REWARDS, name, kind)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("a cat\na dog\na bird\n")


RUN = ["bench", "profile", "--suite", "own.txt", "--parents", "2", "--siblings", "2", "--steps", "3", "--out", "out"]
NAME = "profile-scenes-base-caption"


@pytest.mark.usefixtures("tiny_names")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--dry-run"]) == 0
    assert capsys.readouterr().out == "3 prompts: 72 NFE, 72 reward calls, 75 decodes\n"
    assert not (tmp_path / "out").exists()
    assert main(RUN) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{NAME}.{end}" for end in ("md", "npz", "png")
    ]
    profile = Profile.load(tmp_path / "out" / f"{NAME}.npz")
    assert (profile.model, profile.reward, profile.kernel) == ("scenes-base", "caption", "ddim")
    assert profile.prompts == ("a cat", "a dog", "a bird")
    assert profile.levels == (1.0, 0.666667, 0.333333)
    text = (tmp_path / "out" / f"{NAME}.md").read_text()
    assert f"Written by `rollflow {' '.join(RUN)}`: 3 prompts, 2 parents of 2 siblings" in text
    rows = re.findall(r"^\| \d\.\d\d \|.*\|$", text, re.MULTILINE)
    assert len(rows) == 3
    assert main(RUN) == 0, "its own files cannot be written again"


@pytest.mark.usefixtures("tiny_names")
@pytest.mark.slow
def test_a_search_takes_the_file_of_the_command(tmp_path: Path) -> None:
    assert main(RUN) == 0
    generate = ["generate", "a cat", "--method", "beam", "--nfe", "12", "--set", f"profile=out/{NAME}.npz"]
    assert main([*generate, "--out", "sample"]) == 0
    plan = json.loads((tmp_path / "sample" / "result.json").read_text())["plan"]
    assert plan["method"].startswith("beam(levels=1.0;0.")
    (tmp_path / "out" / f"{NAME}.npz").unlink()
    assert main(["generate", "--from", "sample/result.json", "--out", "again"]) == 0
    assert (tmp_path / "again" / "image.png").read_bytes() == (tmp_path / "sample" / "image.png").read_bytes()


@pytest.mark.usefixtures("tiny_names")
@pytest.mark.slow
def test_an_interrupted_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the prompts that are done, to the same bytes; without --resume it leaves them alone."""
    assert main([*RUN[:-1], "whole"]) == 0
    monkeypatch.setattr(TinyModel, "interrupt_at", 5)  # the second prompt's second call
    capsys.readouterr()
    assert main(RUN) == 130
    assert "1 of 3 prompts are done, and the same command with --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr(TinyModel, "interrupt_at", None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{NAME}.part.npz"]
    assert main(RUN) == 2
    assert "is the beginning of a profile; add --resume" in capsys.readouterr().err
    assert main([*RUN, "--resume", "--seed", "1"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    assert main([*RUN, "--resume", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 prompts: 48 NFE")
    assert main([*RUN, "--resume"]) == 0
    whole = (tmp_path / "whole" / f"{NAME}.md").read_text()
    assert (tmp_path / "out" / f"{NAME}.md").read_text() == whole.replace("--out whole", "--out out")
    for end in ("npz", "png"):
        name = f"{NAME}.{end}"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / f"{NAME}.part.npz").exists()
    capsys.readouterr()
    assert main([*RUN, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("0 prompts: 0 NFE")


@pytest.mark.usefixtures("tiny_names")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--levels", "1;0.5", "--steps", "3"], "both --steps and --levels"),
        (["--levels", "0.5;1"], "fall strictly from 1"),
        (["--levels", "x"], "cannot be read"),
        (["--interpolant", "nosuch"], "unknown interpolant"),
        (["--kernel", "nosuch"], "unknown kernel"),
        (["--reward", "rank(parts=caption;judge)"], "unknown reward|looks back"),
        (["--suite", "none.txt"], "none.txt"),
        (["--parents", "1"], "--parents"),
        (["--device", "cpu"], "only for diffusers pipelines"),
        (["--siblings", "4096", "--parents", "4096"], "ask for less"),
    ],
)
def test_what_the_command_refuses(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in RUN if word not in ("--steps", "3")] if "--levels" in arguments else RUN
    assert main([*words, *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(says, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tiny_names")
def test_levels_of_one_s_own(tmp_path: Path) -> None:
    words = [word for word in RUN if word not in ("--steps", "3")]
    assert main([*words, "--levels", "1;0.6;0.2", "--interpolant", "vp", "--prompts", "2"]) == 0
    profile = Profile.load(tmp_path / "out" / f"{NAME}.npz")
    assert profile.levels[1:] == (0.6, 0.2)
    assert (profile.interpolant, len(profile.prompts)) == ("vp", 2)


@pytest.mark.usefixtures("tiny_names")
def test_prompts_of_one_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in RUN if word not in ("--suite", "own.txt")]
    assert main([*words, "--split", "tuning", "--prompts", "3"]) == 0
    tuning = Profile.load(tmp_path / "out" / f"{NAME}.npz").prompts
    assert [split_of(prompt) for prompt in tuning] == ["tuning"] * 3
    captions = [str(caption) for caption in held_out_captions(40, 0, totals=(3, 12))]
    assert tuning == tuple(caption for caption in captions if split_of(caption) == "tuning")[:3]
    capsys.readouterr()
    assert main([*words, "--split", "nosuch"]) == 2
    assert "unknown split 'nosuch'" in capsys.readouterr().err


def test_a_replay_takes_what_was_designed_then() -> None:
    """A profile that is no longer there, or is another now, changes nothing."""
    config = {"arms": [{"name": "B", "method": "beam(profile=gone.npz)", "nfe": 20}]}
    designed = "beam(levels=1.0;0.2, children=3.0;5.0)"
    known = {"arm": "B", "prompt": "a", "category": "", "ask": None, "place": 0, "seed": 0, "rounds": ()}
    record = SimpleNamespace(**known, plan={"method": designed})
    assert trial_of(config, record).arm.method == designed  # type: ignore[arg-type]
    record.plan = {}
    assert trial_of(config, record).arm.method == "beam(profile=gone.npz)"  # type: ignore[arg-type]


def test_a_kernel_that_no_text_names_is_described() -> None:
    class Own(DDIM):
        pass

    found = profile_of(toy(), ToyReward(), ["a"], replace(SDE, kernel=Own(0.5)), **SIZE)
    assert found.kernel.endswith("Own(eta=0.5)")
