"""Jobs for a search under test, on a fast and exact toy, and assertions about their results."""

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
    """The toy model with two network rows per NFE, as with classifier-free guidance."""

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
    """Parametrise a test with the named samplers."""
    return pytest.mark.parametrize("sampler", [SAMPLERS[name] for name in names], ids=names)


every_sampler = along(*SAMPLERS)


def make(search: Search, sampler: Sampler, spare: int = 0, seed: int = 5) -> Job:
    """Return a job with ``spare`` NFE more than the smallest budget; skip the test if the search refuses guidance."""
    try:
        smallest = search.smallest_nfe(sampler.bind(MODEL))
        return Job(Task(MODEL, "left", JUDGE), search, smallest + spare, seed, sampler)
    except RollflowError as error:
        if sampler.guidance is None or isinstance(error, BudgetTooSmall):
            raise
        pytest.skip(str(error))


def assert_kept(job: Job, spent: Spending) -> None:
    """Assert that a job spent what was declared, or at most that if the cost is not exact, within the budget."""
    declared = estimate_cost(type(MODEL), job.search, job.sampler, job.nfe)
    assert declared.nfe <= job.nfe
    assert all(getattr(spent, what) <= most for what, most in vars(declared).items()), f"{spent} exceeds {declared}"
    if job.search.cost(job.dynamics, job.nfe).exact:
        assert spent == declared


def assert_same(ours: Result, theirs: Result) -> None:
    """Assert that sample, reward, account and diagnostics are the same, to the last bit."""
    assert torch.equal(ours.x0, theirs.x0)
    assert torch.equal(ours.sample, theirs.sample)
    assert (ours.reward, ours.noise_level, ours.spent) == (theirs.reward, theirs.noise_level, theirs.spent)
    assert same(ours.diagnostics, theirs.diagnostics)
    assert (ours.trace, ours.shares) == (theirs.trace, theirs.shares)
