"""Jobs for a search under test, on a toy that is fast and exact, and what must hold of their results."""

from __future__ import annotations

import pytest
import torch

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Cosine, Linear
from rollflow.dynamics.kernels import DDIM, GLASS, Euler, Heun
from rollflow.dynamics.lookahead import ODELookahead
from rollflow.engine import Job, Result, Spending, Task, estimate_cost
from rollflow.errors import BudgetTooSmall, RollflowError
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import Search
from rollflow.testing.values import same


class TwoRows(ToyModel):
    """The toy, as if with classifier-free guidance."""

    rows_per_nfe = 2


_CORNERS = torch.tensor([[-1.0, -1.0], [1.0, 1.5], [2.0, -1.0]])
MODEL = TwoRows(
    {
        "left": GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), _CORNERS, torch.tensor([0.3, 0.5, 0.4])),
        "right": GaussianMixture(torch.tensor([0.4, 0.6]), _CORNERS[1:], torch.tensor([0.2, 0.8])),
    }
)
JUDGE = ToyReward(torch.tensor([1.2, -0.4], dtype=torch.float64))
SAMPLERS = {
    "linear": Sampler(Linear(), steps=4),
    "vp": Sampler(VP(), steps=3),
    "ode": Sampler(Linear(), Euler(), steps=3, finish=False),
    "heun": Sampler(Linear(), Heun(), steps=4, lookahead=ODELookahead(3)),
    "ddim": Sampler(Cosine(), DDIM(), steps=3, lookahead=ODELookahead(2), finish=False),
    "glass": Sampler(Linear(), GLASS(2), steps=3),
    "one-step": Sampler(Linear(), steps=1),
    "guided": Sampler(Linear(), steps=4, guidance=DPS(0.2)),
    "guided-vp": Sampler(VP(), DDIM(0.5), steps=3, lookahead=ODELookahead(2), guidance=DPS(0.1)),
}


def along(*names: str) -> pytest.MarkDecorator:
    """A test for each of these samplers."""
    return pytest.mark.parametrize("sampler", [SAMPLERS[name] for name in names], ids=names)


every_sampler = along(*SAMPLERS)


def make(search: Search, sampler: Sampler, spare: int = 0, seed: int = 5) -> Job:
    """A job with the smallest budget and so many NFE more; skips where the search refuses to be guided."""
    smallest = search.smallest_nfe(sampler.bind(MODEL))
    try:
        return Job(Task(MODEL, "left", JUDGE), search, smallest + spare, seed, sampler)
    except RollflowError as error:
        if sampler.guidance is None or isinstance(error, BudgetTooSmall):
            raise
        pytest.skip(str(error))


def assert_kept(job: Job, spent: Spending) -> None:
    """What was declared is what was spent, or at most that where it is not exact; never more than the budget."""
    told = estimate_cost(type(MODEL), job.search, job.sampler, job.nfe)
    assert told.nfe <= job.nfe
    assert all(getattr(spent, what) <= most for what, most in vars(told).items()), f"{spent} exceeds {told}"
    if job.search.cost(job.dynamics, job.nfe).exact:
        assert spent == told


def assert_same(ours: Result, theirs: Result) -> None:
    """Sample, reward, account and figures, to the last bit."""
    assert torch.equal(ours.x0, theirs.x0)
    assert torch.equal(ours.sample, theirs.sample)
    assert (ours.reward, ours.noise_level, ours.spent) == (theirs.reward, theirs.noise_level, theirs.spent)
    assert same(ours.diagnostics, theirs.diagnostics)
    assert (ours.trace, ours.shares) == (theirs.trace, theirs.shares)
