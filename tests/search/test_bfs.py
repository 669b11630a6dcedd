"""BFS is SMC with other settings, whose copies are what the paper says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import Linear
from rollflow.engine import Engine, Job, Observer, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.resampling import SSP
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import BFS, SMC, Progress
from rollflow.search.smc.potentials import MaxPotential

REWARD = ToyReward(torch.tensor([1.0, 1.5]))


class Saved(Observer):
    def __init__(self) -> None:
        self.states: list[Progress] = []

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        self.states.append(progress)


def test_it_is_smc(plane: ToyModel) -> None:
    task, sampler = Task(plane, "corners", REWARD), Sampler(Linear(), steps=5)
    smc = SMC(MaxPotential(), 0.1, SSP())
    ours, theirs = Engine().run([Job(task, search, 60, 4, sampler) for search in (BFS(), smc)])
    assert torch.equal(ours.sample, theirs.sample)
    assert (ours.spent, ours.diagnostics) == (theirs.spent, theirs.diagnostics)


def test_particles_are_copied_as_often_as_the_best_of_their_past_deserves(plane: ToyModel) -> None:
    """K exp(max r / temperature) / sum, rounded down or up, at every step; and the best is returned."""
    seen, k = Saved(), 12
    job = Job(Task(plane, "corners", REWARD), BFS(temperature=0.5), 5 * k, 4, Sampler(Linear(), steps=5))
    (result,) = Engine(observers=[seen]).run([job])
    most, past = 0, torch.full((k,), -torch.inf, dtype=torch.float64)
    for before, after in zip(seen.states, seen.states[1:], strict=False):
        past = torch.maximum(past, before.particles.reward)
        copies: Tensor = k * torch.softmax(past / 0.5, 0)
        assert after.ancestors is not None
        found = torch.bincount(after.ancestors, minlength=k)
        assert ((found >= copies.floor()) & (found <= copies.ceil())).all()
        most = max(most, int(found.max()))
        past = past[after.ancestors]
    assert most > 1
    assert result.reward == float(seen.states[-1].particles.reward.max())


def test_errors_have_its_name() -> None:
    with pytest.raises(BadSetting, match=r"temperature of bfs must be a finite number > 0, not 0.0"):
        BFS(temperature=0.0)
