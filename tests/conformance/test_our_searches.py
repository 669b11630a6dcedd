"""The library's own searches through the suite that is shipped."""

from __future__ import annotations

from typing import Any

import pytest

from rollflow.particles.resampling import SSP, Residual
from rollflow.search import (
    BFS,
    DFS,
    SEARCHES,
    SMC,
    SVDD,
    Auto,
    Beam,
    BestOfN,
    CoDe,
    Demon,
    EpsilonGreedy,
    Halving,
    RolloverBudget,
    Search,
    SearchOverPaths,
    VerifierThreshold,
    ZeroOrder,
)
from rollflow.search.demon.weights import BoltzmannWeights
from rollflow.search.keeping import AllCopies
from rollflow.search.rbf.acceptance import AtLeast, OverParent
from rollflow.search.rbf.quota import PublishedQuota, WeightedQuota
from rollflow.search.smc.potentials import MaxPotential
from rollflow.search.smc.tempering import AdaptiveTempering
from rollflow.testing import SearchSuite

CASES: list[Search] = [
    BestOfN(),
    SearchOverPaths(1, 1),
    SearchOverPaths(2, 3, start=0.3, forward=0.4, back=0.55),
    SearchOverPaths(3, 2, start=0.3, forward=0.4, back=0.55, keep=AllCopies()),
    CoDe(1, 1),
    CoDe(3, 2),
    CoDe(2, 2, noises=False),
    SVDD(1),
    SVDD(3),
    SVDD(2, temperature=0.5, ratio=0.3),
    SVDD(2, noises=False),
    SVDD(2, recombine=True),
    SMC(),
    SMC(MaxPotential(), 0.1, SSP(), 0.5, AdaptiveTempering(), draw=True),
    SMC(resampling=Residual(), ratio=0.3),
    Auto(),
    Beam(),
    Beam(1, recombine=False),
    Beam(finalists=3),
    Beam(4, levels=(1.0, 0.6, 0.2), children=(1.0, 3.0, 0.5)),
    BFS(),
    DFS(),
    DFS((-9.0, -0.5), start=1.0, depth=1),
    Demon(),
    Demon(BoltzmannWeights(0.5), noises=3),
    EpsilonGreedy(),
    EpsilonGreedy(3, 1.0, 0.5),
    Halving(),
    Halving((0.6, 0.3), (0.4, 0.1), brackets=3),
    VerifierThreshold(),
    VerifierThreshold((-9.0, -0.5), 0.2),
    ZeroOrder(),
    ZeroOrder(3, 0.2),
    RolloverBudget(1, 1),
    RolloverBudget(3, 2),
    RolloverBudget(2, 3, AtLeast(2, OverParent()), WeightedQuota((3.0, 1.0))),
    RolloverBudget(2, 3, quota=PublishedQuota()),
    RolloverBudget(2, 3, recombine=True),
]


def test_every_registered_search_is_tested() -> None:
    assert {type(search) for search in CASES} == set(SEARCHES.values())


FEW_STEPS = pytest.mark.filterwarnings("ignore:paths has too few steps:rollflow.errors.RollflowWarning")
"""The suite's budgets are the smallest, of which a search over paths warns."""


def _marks(place: int, search: Search) -> list[pytest.MarkDecorator]:
    """Marks of a case: of every search only the first settings are among the fast tests."""
    again = any(type(search) is type(earlier) for earlier in CASES[:place])
    return [pytest.mark.slow] * again + [FEW_STEPS] * isinstance(search, SearchOverPaths)


class TestOwn(SearchSuite):
    @pytest.fixture(
        params=[
            pytest.param(search, marks=_marks(place, search), id=repr(search)) for place, search in enumerate(CASES)
        ]
    )
    def search(self, request: pytest.FixtureRequest) -> Any:
        return request.param
