"""The path of a result through a population that resamples: its own ancestors, not whoever has its row by now."""

from __future__ import annotations

import pytest
import torch
from support.tiny import registered  # noqa: F401

from rollflow.api import Plan, run
from rollflow.output.recorder import Recorder
from rollflow.search import SMC


@pytest.mark.parametrize("search", [SMC(temperature=0.005), SMC(temperature=0.005, ratio=0.2)], ids=repr)
@pytest.mark.parametrize("interpolant", ["linear", "vp"])  # finishing is free on the one and costs on the other
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.slow
def test_the_path_is_one_trajectory(search: SMC, interpolant: str, seed: int) -> None:
    """The tiny model's clean estimate is a multiple of the state, and so are an ODE's later states: a ray from 0."""
    recorder = Recorder()
    plan = Plan("a red square", method=search, nfe=170, seed=seed, interpolant=interpolant, kernel="ode")
    result = run(plan.job(), [recorder])
    assert result.diagnostics[0]["ancestors"] < len(recorder.steps[0][0].particles.x)
    frames = recorder.path(result)
    assert len(frames) == 10 + (result.job.dynamics.finish_nfe > 0)
    ray = result.x0.flatten() / result.x0.norm()
    for frame in frames:
        across = frame.x0.flatten() - frame.x0.flatten() @ ray * ray
        assert float(across.norm()) <= 1e-4 * float(frame.x0.norm())
    rows = [step.ancestors for step in recorder.steps[0][1:]]
    assert any(a is not None and a.tolist() != list(range(len(a))) for a in rows)
    assert torch.equal(frames[-1].x0, result.x0)
