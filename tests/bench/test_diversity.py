"""Diversity of samples from one noise, in cases where the answer is known."""

from __future__ import annotations

import re
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import Judge, Redness, TinyModel
from tiny_experiment import ARMS, ITEMS, experiment, run
from torch import Tensor

from rollflow.bench.analysis.results import read
from rollflow.bench.probes.diversity import (
    DISTANCES,
    Perceptual,
    distance_of,
    diversity,
    diversity_of,
    mean_pairwise,
    scenes_distance,
)
from rollflow.bench.run import runner as runners
from rollflow.bench.run.experiment import Arm, Experiment, Spread
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.plans import diversity_cost
from rollflow.cli import main
from rollflow.dynamics.interpolants import VP, Linear
from rollflow.dynamics.kernels import Euler, EulerMaruyama
from rollflow.errors import RollflowError, UnknownName
from rollflow.models import MODELS
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.report import tables
from rollflow.rewards import REWARDS
from rollflow.sampler import Sampler


def squared(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared difference over coordinates."""
    return (x - y).square().flatten(1).mean(1)


def gaussian(dimension: int, std: float) -> ToyModel:
    """A model whose samples are Gaussian and centred, for both of its prompts."""
    law = GaussianMixture(torch.ones(1), torch.zeros(1, dimension), torch.tensor([std]))
    return ToyModel({"a": law, "b": law})


def modes() -> ToyModel:
    """A model with two prompts of four modes each."""
    means = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(0))
    a, b = (GaussianMixture(torch.ones(4), of, torch.full((4,), 0.2)) for of in means)
    return ToyModel({"a": a, "b": b})


@pytest.mark.parametrize("path", [Linear(), VP()], ids=["linear", "vp"])
def test_without_noise_on_the_way_there_is_but_one_sample(path: Linear | VP) -> None:
    found = diversity(modes(), ["a", "b"], Sampler(path, Euler(), steps=6), squared, trajectories=4)
    assert found.of == {"a": 0.0, "b": 0.0}
    assert found.mean.mean == 0


def test_trajectories_share_their_first_noise_and_nothing_else() -> None:
    """For a Gaussian every step is affine, x' = m x + c + g sqrt(d) z, so that the variance given x_1 is a recursion.

    The squared distance of two samples is twice that variance, times the square of the slope of the last estimate.
    """
    std, steps = 0.6, 8
    model, sampler = gaussian(64, std), Sampler(Linear(), EulerMaruyama(), steps=steps, finish=False)
    times = sampler.bind(model).times.tolist()
    variance = 0.0
    for t, s in pairwise(times):
        spread, g = (1 - t) ** 2 * std**2 + t**2, 3 * t**2
        slope = (t - (1 - t) * std**2) / spread + g**2 / 2 / spread
        variance = (1 - (t - s) * slope) ** 2 * variance + g**2 * (t - s)
    last = times[-1]
    estimate = (1 - last) * std**2 / ((1 - last) ** 2 * std**2 + last**2)
    expected, n = 2 * variance * estimate**2, 200
    found = diversity(model, ["a"], sampler, squared, trajectories=n).of["a"]
    assert abs(found / expected - 1) < 4 * (2 / (64 * (n - 1))) ** 0.5


def test_a_prompt_is_alone_and_the_seed_decides() -> None:
    model, sampler = modes(), Sampler(VP(), EulerMaruyama(), steps=5)
    both = diversity(model, ["a", "b"], sampler, squared, trajectories=3)
    assert both.of["b"] == diversity(model, ["b"], sampler, squared, trajectories=3).of["b"] > 0
    assert both.mean.mean == pytest.approx(sum(both.of.values()) / 2)
    assert both != diversity(model, ["a", "b"], sampler, squared, trajectories=3, seed=1)


def test_noises_are_taken_in_turn() -> None:
    """Without noise on the way samples from one noise are equal; for four from two noises, four of six pairs differ."""
    model, sampler = modes(), Sampler(Linear(), Euler(), steps=5)
    pair = diversity(model, ["a"], sampler, squared, trajectories=2, noises=2).of["a"]
    assert diversity(model, ["a"], sampler, squared, trajectories=4, noises=2).of["a"] == pytest.approx(pair * 4 / 6)
    assert pair > 0


def test_one_trajectory_has_no_distance() -> None:
    with pytest.raises(RollflowError, match="at least 2 trajectories, got 1"):
        diversity(modes(), ["a"], Sampler(), squared, trajectories=1)


def test_every_pair_counts_once() -> None:
    samples = torch.tensor([[0.0], [1.0], [3.0]])
    assert mean_pairwise(samples, squared) == pytest.approx((1 + 9 + 4) / 3)


def test_the_perceptual_distance_by_hand() -> None:
    """Two layers and two places: at one the features are orthogonal, at the other they differ only in length."""
    x = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]])
    y = torch.tensor([[[[0.0, 5.0]], [[3.0, 0.0]]]])
    distance = Perceptual(lambda pixels: [pixels, -7 * pixels])
    assert distance(x, y).tolist() == pytest.approx([2 * (2 + 0) / 2])


def test_the_distance_of_scenes_is_one() -> None:
    """It is non-negative, symmetric, 0 for equal pictures, and larger for pictures that look less alike."""
    noise = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    distance = scenes_distance()
    with torch.no_grad():
        there, back = distance(noise[:3], noise[3:]), distance(noise[3:], noise[:3])
        same, near = distance(noise[:3], noise[:3]), distance(noise[:3], 0.98 * noise[:3] + 0.02 * noise[3:])
    assert torch.equal(there, back)
    assert not same.any()
    assert (near > 0).all()
    assert (near < there).all()


def test_lpips_is_asked_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network gets pictures from -1 to 1, and films frame by frame."""

    class Network(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert (net, verbose) == ("alex", False)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            assert x.shape[1:] == (3, 8, 8)
            assert not self.training
            return (x - y).abs().amax((1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Network))
    distance = distance_of("lpips")
    black, grey, white = (torch.full((2, 3, 8, 8), value) for value in (0.0, 0.5, 1.0))
    assert distance(black, white).tolist() == [2.0, 2.0]
    film = torch.stack([black, grey], 1)
    assert distance(film, torch.zeros_like(film)).tolist() == [0.5, 0.5]


def test_a_distance_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(RollflowError, match="pip install lpips"):
        distance_of("lpips")
    with pytest.raises(UnknownName, match="unknown distance 'lpip'; did you mean 'lpips'"):
        distance_of("lpip")


WITH_VP = (*ARMS, Arm("RBF, VP", "rbf(initial=2)", 24, interpolant="vp", kernel="sde", steps=4))


@pytest.fixture
def tiny_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return what is run, by the names that its cost is reported under."""
    monkeypatch.setitem(MODELS, "scenes-base", TinyModel)
    for name, kind in {"caption": Redness, "judge": Judge}.items():
        monkeypatch.setitem(REWARDS, name, kind)


@pytest.fixture
def spread(tiny_names: None, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Return an experiment that measures diversity after a short search."""
    monkeypatch.setitem(DISTANCES, "squared", lambda: squared)
    return experiment(arms=WITH_VP, seeds=1, diversity=Spread(3, "squared"))


def test_an_experiment_measures_each_dynamics_once(spread: Experiment, tmp_path: Path) -> None:
    """It is measured for every prompt as by the function, and the report has a row for each dynamics."""
    run(tmp_path, experiment=spread)
    study = read(tmp_path)
    assert [(entry.arm, entry.prompt) for entry in study.diversity] == [
        (arm, item.prompt) for item in ITEMS for arm in ("BoN", "RBF, VP")
    ]
    for (_, trial), entry in zip(spread.measurements(), study.diversity, strict=True):
        sampler = Sampler(VP() if trial.arm.interpolant == "vp" else Linear(), EulerMaruyama(), steps=4)
        of = diversity(TinyModel(), [trial.item.prompt], sampler, squared, trajectories=3, seed=trial.noise)
        assert entry.diversity == of.of[trial.item.prompt] > 0
    table = tables.diversity(study)
    assert [row[:2] for row in table.rows] == [("BoN", 2), ("RBF, VP", 2)]
    assert "('squared') of 3 trajectories" in table.notes[0]
    _, again = run(tmp_path, experiment=spread)
    assert again.rows == 0


def test_a_measurement_that_was_stopped_goes_on(
    spread: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished measurements and jobs are not repeated, and the rest costs what the dry run said."""
    asked: list[str] = []

    def failing(model: Any, prompt: str, *settings: Any) -> float:
        asked.append(prompt)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return diversity_of(model, prompt, *settings)

    monkeypatch.setattr(runners, "diversity_of", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, experiment=spread)
    assert len(JournalIndex(tmp_path).diversity) == 1
    assert not list((tmp_path / "claims").iterdir())
    runner, model = run(tmp_path, experiment=spread)
    assert len(asked) == 1 + len(spread.measurements())
    assert len(runner.index.diversity) == len(spread.measurements())
    assert model.rows == diversity_cost(spread) - (1 + 3 * 3)


@pytest.mark.usefixtures("tiny_names")
def test_an_experiment_that_measures_none_says_nothing_of_it(tmp_path: Path) -> None:
    assert "diversity" not in experiment().config()
    run(tmp_path)
    assert not tables.diversity(read(tmp_path)).rows


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    """The table has a row for each dynamics of the ablation, each with its interval."""
    small = ["--prompts", "3", "--trajectories", "2", "--out", str(tmp_path)]
    assert main(["bench", "diversity", "--model", "scenes-base", *small]) == 0
    text = (tmp_path / "diversity-scenes-base.md").read_text()
    rows = re.findall(r"^\| (.+) \| (\d+\.\d+) \[(\d+\.\d+), (\d+\.\d+)\] \|$", text, re.M)
    assert [row[0] for row in rows] == [
        "Linear-ODE, a noise each",
        "Linear-SDE",
        "VP's grid only",
        "VP's diffusion only",
        "VP-SDE",
    ]
    assert all(0 < float(low) <= float(mean) <= float(high) for _, mean, low, high in rows)
