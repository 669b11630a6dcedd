"""Checkpoints of version 3, written before modules, classes and a field had their present names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.forging import forged

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, Task, load_checkpoint, save_checkpoint
from rollflow.engine.checkpoint.file import read_job, setting_text
from rollflow.errors import BadCheckpoint
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SMC, Progress, RolloverBudget, Search

FOLDER = Path(__file__).parent / "version3"
MIXTURE = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-2.0, 1.0], [2.0, 0.0]]), torch.tensor([0.4, 0.6]))
TASK = Task(ToyModel({"two modes": MIXTURE}), "two modes", ToyReward(torch.tensor([-2.0, 1.0], dtype=torch.float64)))
SAMPLER = Sampler(Linear(), steps=4, guidance=DPS(0.1))
SEARCHES: dict[str, Search] = {"rbf": RolloverBudget(2, 3), "smc": SMC()}
REWARDS = {"rbf": -0.02030103750733013, "smc": -0.007284267677267293}
"""Rewards that the release which wrote the checkpoints ended with."""


@pytest.mark.parametrize("name", SEARCHES)
def test_a_checkpoint_of_version_3_is_resumed_with_the_same_bits(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.checkpoint"
    assert path.read_bytes().startswith(b"rollflow checkpoint 3\n")
    job = Job(TASK, SEARCHES[name], 60, 5, SAMPLER)
    checkpoint = load_checkpoint(job, path)
    assert 0 < sum(one.spent.nfe for one in checkpoint.populations) < 60
    [whole] = Engine().run([job])
    [resumed] = Engine().run([replace(job, resume=checkpoint)])
    assert resumed.reward == pytest.approx(REWARDS[name], abs=1e-9)
    assert torch.equal(resumed.x0, whole.x0)
    assert (resumed.reward, resumed.spent, resumed.trace) == (whole.reward, whole.spent, whole.trace)
    save_checkpoint(job, checkpoint, tmp_path / "again")
    assert (tmp_path / "again").read_bytes().startswith(b"rollflow checkpoint 4\n")
    [again] = Engine().run([replace(job, resume=load_checkpoint(job, tmp_path / "again"))])
    assert torch.equal(again.x0, whole.x0)


def test_what_guided_particles_is_kept() -> None:
    """``lean`` of version 3 is ``guidance_shift``; without it, a gradient would be paid again."""
    checkpoint = load_checkpoint(Job(TASK, SMC(), 60, 5, SAMPLER), FOLDER / "smc.checkpoint")
    [population] = checkpoint.populations
    assert isinstance(population.state, Progress)
    shift = population.state.particles.guidance_shift
    assert shift is not None
    assert shift.shape == population.state.particles.x.shape
    assert bool((shift != 0).any())


def test_the_job_of_version_3_is_read() -> None:
    assert read_job(FOLDER / "rbf.checkpoint")["search"] == setting_text(SEARCHES["rbf"])


def test_another_job_of_version_3_is_refused() -> None:
    other = Job(TASK, SEARCHES["rbf"], 60, 6, SAMPLER)
    with pytest.raises(BadCheckpoint, match=r"belongs to another job: seed was 5, is 6$"):
        load_checkpoint(other, FOLDER / "rbf.checkpoint")


def test_a_class_that_is_no_state_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "forged"
    path.write_bytes((FOLDER / "rbf.checkpoint").read_bytes())
    forged(path, lambda content: {**content, "checkpoint": {"class": "rollflow.engine.job:Task", "fields": {}}})
    with pytest.raises(BadCheckpoint, match="it holds a 'Task', which is not a state of its search"):
        load_checkpoint(Job(TASK, SEARCHES["rbf"], 60, 5, SAMPLER), path)
