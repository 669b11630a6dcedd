"""A population that goes on from any state that it saved ends as it would have, and spends what was left."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, Kernel
from rollflow.errors import BudgetTooSmall
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Request, Reward, Save, Velocity, drive
from rollflow.sampler import Sampler
from rollflow.search import (
    DFS,
    SEARCHES,
    SMC,
    SVDD,
    BestOfN,
    CoDe,
    Finished,
    Progress,
    Propagator,
    RolloverBudget,
    Search,
    SearchOverPaths,
)
from rollflow.search.smc.tempering import LinearTempering

SEARCHES_HERE: list[tuple[Search, int]] = [
    (BestOfN(), 5),
    (SVDD(2, 0.3), 5),
    (CoDe(2, 2), 5),
    (SMC(temperature=0.5, threshold=0.9, tempering=LinearTempering(), draw=True), 5),
    (SearchOverPaths(2, 2, start=0.3, forward=0.4, back=0.55), 3),
    (RolloverBudget(1, 3), 5),
    *((SEARCHES[name](), 5) for name in ("auto", "beam", "bfs", "demon", "epsilon-greedy", "halving", "threshold")),
    (SEARCHES["zero-order"](), 3),
]
every_search = pytest.mark.parametrize(("search", "saves"), SEARCHES_HERE, ids=lambda one: getattr(one, "name", None))


def run(
    model: ToyModel, search: Search, kernel: Kernel, nfe: int, resume: Progress | None = None
) -> tuple[Finished, list[Progress], list[Request]]:
    """A population on its own, what it saved, and all that it asked for beside."""
    saved, asked = list[Progress](), list[Request]()

    def answer(request: Request) -> Any:
        match request:
            case Velocity(x, t):
                asked.append(request)
                return model.velocity(x, t, ["pair"] * len(x))
            case Reward(x0):
                asked.append(request)
                return torch.sin(3 * x0[:, 0]) + x0[:, 1]
            case Save(state):
                saved.append(state)
        return None

    propagator = Propagator(Sampler(Linear(), kernel, steps=5).bind(model), Noise(6, 0, (2,), torch.float64), nfe)
    return drive(search.population(propagator, resume), answer), saved, asked


def test_every_search_goes_on() -> None:
    """But depth-first search, which saves as often as it turns back: its own tests and the suite resume it."""
    assert {type(search) for search, _ in SEARCHES_HERE} == {*SEARCHES.values()} - {DFS}


@every_search
@pytest.mark.parametrize("kernel", [Euler(), EulerMaruyama(), DDIM(0.5)], ids=str)
def test_it_ends_as_it_would_have(plane: ToyModel, search: Search, saves: int, kernel: Kernel) -> None:
    whole, saved, asked = run(plane, search, kernel, 61)
    assert [progress.step for progress in saved] == list(range(saves))
    assert sum(progress.nfe_spent for progress in saved) <= 61
    for progress in saved:
        rest, later, requests = run(plane, search, kernel, 61, progress)
        assert torch.equal(rest.x0, whole.x0)
        assert rest[1:] == whole[1:]
        ahead = saved[progress.step + 1 :]
        for mine, theirs in zip(later, ahead, strict=True):
            assert (mine.step, mine.nfe_left, mine.nfe_spent) == (theirs.step, theirs.nfe_left, theirs.nfe_spent)
            assert torch.equal(mine.particles.x, theirs.particles.x)
            assert mine.noise_level == theirs.noise_level
        assert len(requests) < len(asked)
        assert [len(vars(one)) for one in requests] == [len(vars(one)) for one in asked[len(asked) - len(requests) :]]


@every_search
def test_less_than_the_smallest_population_is_refused(plane: ToyModel, search: Search, saves: int) -> None:
    """Before anything is asked for; with just as much it runs, and spends it."""
    if search.name in ("auto", "threshold"):
        pytest.skip("one is another search in the end, and the other declares all of its budget")
    smallest = search.price(Sampler(Linear(), Euler(), steps=5).bind(plane), 0).nfe
    with pytest.raises(BudgetTooSmall) as refused:
        run(plane, search, Euler(), smallest - 1)
    assert (refused.value.method, refused.value.smallest) == (search.name, smallest)
    _, saved, _ = run(plane, search, Euler(), smallest)
    assert sum(progress.nfe_spent for progress in saved) == smallest
