"""All that each search asks for with guidance, request by request: which rows are differentiated, scored, and where."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import Linear
from rollflow.dynamics.kernels import EulerMaruyama
from rollflow.models.mixture.model import ToyModel
from rollflow.particles.rng import Noise
from rollflow.requests import Grad, Request, Reward, Save, Slope, Velocity, drive
from rollflow.sampler import Sampler
from rollflow.search import (
    SEARCHES,
    SMC,
    SVDD,
    BestOfN,
    CoDe,
    Progress,
    Propagator,
    RolloverBudget,
    Search,
    SearchOverPaths,
)

LEVELS = (1.0, 0.75, 0.5, 0.25)


def asked(model: ToyModel, search: Search, nfe: int, steps: int = 4) -> tuple[list[str], list[Progress]]:
    """Requests such as "grad 3 at 0.5", 3 rows at that noise level, where all rewards are 0; and what was saved."""
    texts, saved = list[str](), list[Progress]()

    def answer(request: Request) -> Any:
        match request:
            case Velocity(x, t):
                texts.append(f"velocity {len(x)} at {float(t[0]):.4g}")
                assert (t == t[0]).all()
                return torch.zeros_like(x)
            case Reward(x0, level):
                texts.append(f"reward {len(x0)} at {level:.4g}")
                return torch.zeros(len(x0), dtype=torch.float64)
            case Grad(x, t, level):
                texts.append(f"grad {len(x)} at {level:.4g}")
                assert t.tolist() == pytest.approx([level] * len(x))
                return Slope(0 * x, x, torch.zeros(len(x), dtype=torch.float64), torch.ones_like(x))
            case Save(state):
                saved.append(state)
        return None

    sampler = Sampler(Linear(), EulerMaruyama(), steps=steps, guidance=DPS(0.1))
    propagator = Propagator(sampler.bind(model), Noise(6, 0, (2,), torch.float64), nfe)
    drive(search.population(propagator), answer)
    return texts, saved


def scored(rows: int, *levels: float) -> list[str]:
    return [f"{kind} {rows} at {level:.4g}" for level in levels for kind in ("velocity", "reward")]


def differentiated(rows: int, *levels: float) -> list[str]:
    return [f"grad {rows} at {level:.4g}" for level in levels]


SVDDS = [scored(4, 1.0), *([*differentiated(2, t), *scored(4, s)] for t, s in pairwise(LEVELS))]
CHAIN = [scored(3, 1.0), *([*differentiated(1, t), *scored(1, s, s)] for t, s in pairwise(LEVELS))]
CASES: list[tuple[Search, int, list[str]]] = [
    (BestOfN(), 8, [*differentiated(2, 1, 0.75, 0.5), *scored(2, 0.25)]),
    (SMC(), 12, [*differentiated(3, 1, 0.75, 0.5), *scored(3, 0.25)]),
    (SVDD(2), 22, [request for step in SVDDS for request in step]),
    (RolloverBudget(1, 3), 12, [request for step in CHAIN for request in step]),
    (CoDe(2, 2), 18, [*differentiated(4, 1, 0.75), *scored(4, 0.5), *differentiated(2, 0.5), *scored(4, 0.25)]),
    (
        SearchOverPaths(2, 2, start=0.3, forward=0.4, back=0.55),
        20,
        [
            *(*differentiated(2, 1.0), *scored(2, 0.3)),
            *(*differentiated(4, 0.7), *scored(4, 0.15)),
            *(*differentiated(4, 0.55), *scored(4, 0.25)),
        ],
    ),
]


def test_every_search_of_the_paper_is_here() -> None:
    """What the others ask for, their own tests and the conformance suite say."""
    papers = {SEARCHES[name] for name in ("bon", "paths", "smc", "code", "svdd", "rbf")}
    assert {type(search) for search, _, _ in CASES} == papers


@pytest.mark.parametrize(("search", "nfe", "requests"), CASES, ids=lambda one: getattr(one, "name", None))
def test_what_is_asked_for(plane: ToyModel, search: Search, nfe: int, requests: list[str]) -> None:
    """All of the budget is spent, and the dry run says so."""
    texts, saved = asked(plane, search, nfe)
    assert texts == requests
    assert sum(progress.nfe_spent for progress in saved) == nfe
    dynamics = Sampler(Linear(), EulerMaruyama(), steps=4, guidance=DPS(0.1)).bind(plane)
    cost = search.price(dynamics, search._surplus(dynamics, nfe))
    assert cost.nfe == nfe
    assert cost.backward_passes == sum(int(text.split()[1]) for text in texts if text.startswith("grad"))
    assert cost.reward_calls == sum(int(text.split()[1]) for text in texts if not text.startswith("velocity"))


@pytest.mark.parametrize("search", [BestOfN(), CoDe(2, 2), CoDe(2, 1)], ids=repr)
@pytest.mark.parametrize(("steps", "nfe"), [(1, 2), (2, 8)])
def test_one_or_two_steps(plane: ToyModel, search: Search, steps: int, nfe: int) -> None:
    """Of one alone there are no children, so that nothing leans; of two the first particles are the only parents."""
    texts, _ = asked(plane, search, nfe, steps)
    rows = nfe // steps
    dynamics = Sampler(Linear(), EulerMaruyama(), steps=steps, guidance=DPS(0.1)).bind(plane)
    assert search.cost(dynamics, nfe).backward_passes == (0 if steps == 1 else rows)
    assert texts == (scored(rows, 1.0) if steps == 1 else [*differentiated(rows, 1.0), *scored(rows, 0.5)])


@pytest.mark.parametrize(("search", "nfe"), [(CoDe(2, 2), 18), (SMC(), 12)], ids=repr)
def test_the_first_particles_have_no_ancestors(plane: ToyModel, search: Search, nfe: int) -> None:
    _, saved = asked(plane, search, nfe)
    assert [progress.ancestors is None for progress in saved] == [True, False, False, False]
