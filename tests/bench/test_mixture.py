"""The mixture with a hard-to-hit mode: its closed forms, and a tiny table against jobs run one by one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from rollflow.bench.intervals import bootstrap
from rollflow.bench.probes import mixture
from rollflow.bench.probes.arms import MIXTURE_ARMS, PLAIN, rollover
from rollflow.bench.probes.outcomes import Measured
from rollflow.bench.probes.plots import budgets
from rollflow.bench.probes.rare_mode import RareMode, rare_mode
from rollflow.cli import main
from rollflow.engine import Job
from rollflow.errors import BudgetTooSmall
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.particles.rng import Noise

MEANS = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.8, 0.0], [-1.0, 0.0, 0.0]])
OVERLAPPING = RareMode(GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), MEANS, torch.tensor([0.3, 0.4, 0.6])))


def test_exact_references_are_those_of_exact_samples() -> None:
    """The modes overlap and differ in width, so that every term matters."""
    n, mixture_ = 200_000, OVERLAPPING.mixture
    x0 = mixture_.sample(n, torch.Generator().manual_seed(0)).numpy()
    rewards = -((x0 - MEANS[0].numpy()) ** 2).sum(1)
    inside = (np.abs(x0 - MEANS[0].numpy()) < 3 * 0.3).all(1)
    assert abs(rewards.mean() - float(mixture_.weights @ OVERLAPPING.expected_reward())) < 4 * rewards.std() / n**0.5
    share = float(mixture_.weights @ OVERLAPPING.hit_probability())
    assert abs(inside.mean() - share) < 4 * (share * (1 - share) / n) ** 0.5
    assert OVERLAPPING.best_of(1) == pytest.approx(float(mixture_.weights @ OVERLAPPING.expected_reward()), abs=1e-6)
    for best_of in (2, 20):
        best = rewards.reshape(-1, best_of).max(1)
        assert abs(best.mean() - OVERLAPPING.best_of(best_of)) < 4 * best.std() / len(best) ** 0.5
    assert torch.equal(OVERLAPPING.hits(torch.from_numpy(x0)), torch.from_numpy(inside))


def test_the_signal_of_two_narrow_modes() -> None:
    """On the line between two modes the states are N(+-alpha D / 2, sigma^2), and the reward rises along it."""
    means, draws = torch.tensor([[0.6, 0.8], [0.0, 0.0]]), 20_000
    two = RareMode(GaussianMixture(torch.tensor([0.1, 0.9]), means, torch.full((2,), 1e-4)))
    for t in (1.0, 0.7, 0.5, 0.3):
        area = stats.norm.cdf((1 - t) / (t * math.sqrt(2)))
        assert abs(two.signal(t, draws) - area) < 4 * (area * (1 - area) / draws) ** 0.5
    assert abs(OVERLAPPING.signal(1.0) - 0.5) < 0.02


def own_figures(label: str, nfe: int, seeds: int, alone: Callable[[Job], Any]) -> tuple[list[float], list[bool], float]:
    """Return the rewards, hits and mean NFE of an arm over seeds, without the engine or the setting's own formulas."""
    arm, task = MIXTURE_ARMS[label], rare_mode().task()
    runs = [alone(arm.job(task, nfe, seed)) for seed in range(seeds)]
    samples = [run.best.x0.numpy() for run in runs]
    centre = np.eye(8)[0]
    rewards = [-float(((x0 - centre) ** 2).sum()) for x0 in samples]
    return (
        rewards,
        [bool((np.abs(x0 - centre) < 0.3).all()) for x0 in samples],
        float(np.mean([r.spent.nfe for r in runs])),
    )


@pytest.mark.slow
def test_cells_are_what_jobs_give_one_by_one(alone: Callable[[Job], Any]) -> None:
    seeds, nfe = 4, 60
    column = mixture.measure(rare_mode(), MIXTURE_ARMS, nfe, seeds)
    assert list(column) == list(MIXTURE_ARMS)
    hit = 0
    for label in MIXTURE_ARMS:
        if "DPS" not in label:
            rewards, hits, spent = own_figures(label, nfe, seeds, alone)
            cell = column[label]
            assert isinstance(cell, Measured)
            np.testing.assert_allclose(cell.reward, bootstrap(rewards), rtol=1e-12)
            assert cell.hits == bootstrap(np.array(hits, float))
            assert cell.nfe == spent <= nfe
            hit += sum(hits)
    assert 0 < hit < seeds * len(MIXTURE_ARMS)  # so that hits were put to the test


def test_a_cell_that_cannot_be_holds_the_smallest_budget() -> None:
    """Two chains of 3 noises and 9 children: each spends 7 NFE on finishing with VP, 9 on gradients if guided."""
    column = mixture.measure(rare_mode(), {k: MIXTURE_ARMS[k] for k in ("RBF, VP-SDE", "RBF + DPS, Linear-SDE")}, 25, 2)
    smallest = {label: cell.smallest for label, cell in column.items() if isinstance(cell, BudgetTooSmall)}
    assert smallest == {"RBF, VP-SDE": 2 * (3 + 9 + 7), "RBF + DPS, Linear-SDE": 2 * (3 + 9 + 9)}
    assert [rollover(nfe).initial for nfe in (4, 25, 100, 200, 800)] == [1, 3, 12, 25, 25]


def test_plain_trajectories_are_the_sampler() -> None:
    """Take ten Euler steps by hand from the noises of the job."""
    x, exact, n = Noise(0, 0, (8,), torch.float64).normals(0, range(300), [0] * 300), rare_mode().mixture, 300
    for i in range(10, 0, -1):
        x = x - 0.1 * exact.velocity(x, i / 10)
    found = mixture.plain(rare_mode(), PLAIN["Linear-ODE"], n)
    distance = (x - torch.eye(8)[0]).square().sum(1)
    assert found.reward.mean == pytest.approx(-float(distance.mean()), rel=1e-9)
    assert found.hits.mean == pytest.approx(float((distance < 0.5).double().mean()))  # others are 2 away
    assert 0 < found.hits.mean < 0.06
    assert found.nfe == 10


@pytest.mark.slow
def test_the_command_writes_the_table(tmp_path: Path, alone: Callable[[Job], Any]) -> None:
    arguments = ["bench", "mixture", "--seeds", "2", "--budgets", "25,40", "--trajectories", "40", "--out"]
    assert main([*arguments, str(tmp_path)]) == 0
    text = (tmp_path / "mixture.md").read_text()
    for label in ("best of N, Linear-SDE", "SVDD, argmax, Linear-SDE", "RBF, Linear-SDE"):
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith(f"| {label} |")]
        assert len(rows) == 3  # reward, hits, NFE
        for column, nfe in enumerate((25, 40), 1):
            rewards, hits, spent = own_figures(label, nfe, 2, alone)
            assert rows[0][column].startswith(f"{np.mean(rewards):.3f} [")
            assert rows[1][column].startswith(f"{100 * np.mean(hits):.1f} % [")
            assert rows[2][column].rstrip(" |") == f"{spent:g}"
    assert "| RBF, VP-SDE | needs 38 | " in text
    assert f"| *exact: one sample of the mixture* | {-(0.98 * 2 + 8 * 0.01):.3f} | " in text
    with Image.open(io.BytesIO((tmp_path / "mixture.png").read_bytes())) as image:
        assert image.size == (1200, 600)


def test_budgets_that_are_no_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "mixture", "--budgets", "25,many", "--out", str(tmp_path)]) == 2
    assert "25,many" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_plot_draws_means_bands_and_what_is_exact() -> None:
    curve = {25: bootstrap([0.0, 1.0, 5.0]), 50: bootstrap([1.0, 2.0])}
    figure = budgets({"search": curve}, {"exact": {25: -2.0, 50: -1.0}})
    [axes] = figure.axes
    assert [list(np.asarray(line.get_ydata())) for line in axes.lines] == [[2.0, 1.5], [-2.0, -1.0]]
    corners = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in np.asarray(corners)} == {(n, v) for n in curve for v in curve[n][1:3]}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["25", "50"]
