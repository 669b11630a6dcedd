"""What the recorder remembers, and that the figures show just that."""

from __future__ import annotations

import io
import math
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from support.tiny import TinyModel, registered  # noqa: F401

from rollflow.api import Plan, run
from rollflow.engine import Interrupted, Result, in_lockstep
from rollflow.output import plots
from rollflow.output.recorder import Recorder
from rollflow.search import RolloverBudget


def recorded(**settings: Any) -> tuple[Result, Recorder]:
    recorder = Recorder()
    plan = Plan("a red square", **{"method": "rbf", "nfe": 90, "interpolant": "vp", **settings})
    try:
        return run(plan.job(), [recorder]), recorder
    except Interrupted as stopped:
        [result] = stopped.results
        assert result is not None
        return result, recorder


@pytest.mark.parametrize("method", ["bon", "svdd", "rbf"])
@pytest.mark.parametrize("interpolant", ["vp", "linear"])  # finishing costs on the one and is free on the other
@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.slow
def test_path_leads_to_the_result(method: str, interpolant: str, finish: bool, seed: int) -> None:
    result, recorder = recorded(method=method, interpolant=interpolant, finish=finish, seed=seed)
    frames = recorder.path(result)
    assert torch.equal(frames[-1].x0, result.x0)
    assert frames[-1].reward == result.reward
    finishing = result.job.dynamics.finish_nfe > 0
    assert len(frames) == 10 + finishing
    levels = [frame.noise_level for frame in frames]
    assert all(a > b for a, b in pairwise(levels))
    if method == "rbf":  # the last estimate kept is that of the chain whose finished sample won
        rewards = [steps[-1].particles.reward.item() for steps in recorder.steps.values()]
        assert (frames[-2] if finishing else frames[-1]).reward in rewards


@pytest.mark.slow
def test_path_is_that_of_the_chain_that_won() -> None:
    winners = set()
    for seed in range(6):
        result, recorder = recorded(method=RolloverBudget(2, 3), seed=seed)
        single = [max(p.reward for p in recorder.points if p.population == i and p.noise_level == 0) for i in (0, 1)]
        winner = single.index(max(single))
        kept = recorder.steps[winner][3].particles.clean[0]
        assert torch.equal(recorder.path(result)[3].x0, kept)
        winners.add(winner)
    assert winners == {0, 1}


def test_points_are_all_that_was_scored() -> None:
    result, recorder = recorded()
    assert len(recorder.points) == result.spent.reward_calls
    assert all(a.nfe <= b.nfe for a, b in pairwise(recorder.points))
    running = [point for point in recorder.points if point.reward == result.trace[-1].reward]
    assert in_lockstep(running[0].nfe, result.shares) == result.trace[-2].nfe


@pytest.mark.slow
def test_a_recorder_begins_anew_with_every_job() -> None:
    recorder = Recorder()
    plan = Plan("a red square", nfe=90, interpolant="vp")
    first = run(plan.job(), [recorder])
    points = list(recorder.points)
    run(plan.job(), [recorder])
    assert recorder.points == points
    assert torch.equal(recorder.path(first)[-1].x0, first.x0)


@pytest.mark.parametrize("at", [2, 9, 14])
@pytest.mark.parametrize("method", ["svdd", "rbf"])
@pytest.mark.slow
def test_an_interrupted_path_ends_in_the_best_so_far(method: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyModel, "interrupt_at", at)
    result, recorder = recorded(method=method)
    assert result.interrupted
    frames = recorder.path(result)
    assert torch.equal(frames[-1].x0, result.x0)
    assert isinstance(plots.filmstrip(result, recorder), Figure)
    assert isinstance(plots.trace(result, recorder), Figure)


def test_trace_draws_rewards_and_quota() -> None:
    result, recorder = recorded()
    baseline = run(Plan("a red square").baseline())
    figure = plots.trace(result, recorder, baseline)
    rewards, quotas = figure.axes
    lines = {line.get_label(): line for line in rewards.get_lines()}
    assert set(lines) == {"scored", "best so far", "result", "baseline"}
    assert lines["best so far"].get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(lines["best so far"].get_xydata(), result.trace)
    assert len(lines["scored"].get_xdata()) == result.spent.reward_calls  # type: ignore[arg-type]
    assert list(lines["baseline"].get_ydata()) == [baseline.reward] * 2  # type: ignore[arg-type]
    heights = [[bar.get_height() for bar in chain] for chain in quotas.containers]
    assert heights == recorder.quota


def test_filmstrip_shows_the_decoded_path() -> None:
    result, recorder = recorded()
    frames = recorder.path(result)
    figure = plots.filmstrip(result, recorder)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == len(frames) == 11
    for axes, frame in zip(shown, frames, strict=True):
        pixels = result.job.task.model.decode(frame.x0[None])[0].permute(1, 2, 0)
        np.testing.assert_array_equal(axes.images[0].get_array(), pixels)
        assert axes.images[0].get_interpolation() == "nearest"
    assert shown[0].get_xlabel() == f"noise {frames[0].noise_level:.2f}\nreward {frames[0].reward:.3g}"
    assert shown[-1].get_xlabel() == f"finished\nreward {result.reward:.3g}"


def test_best_of_n_is_not_scored_on_the_way() -> None:
    result, recorder = recorded(method="bon")
    assert math.isnan(recorder.path(result)[0].reward)
    assert "not scored" in plots.filmstrip(result, recorder).axes[0].get_xlabel()


@pytest.mark.slow
def test_png_without_pyplot() -> None:
    result, recorder = recorded()
    with Image.open(io.BytesIO(plots.figure_png(plots.trace(result, recorder)))) as image:
        assert image.size == (1200, 456)
    assert "matplotlib.pyplot" not in sys.modules
