"""Defaults and bounds of searches and their parts, and what unknown names of them are called."""

from __future__ import annotations

from typing import Any

import pytest

from rollflow.errors import BadSetting, UnknownName
from rollflow.particles.resampling import Systematic
from rollflow.search import SEARCHES, SMC, SVDD, BestOfN, CoDe, RolloverBudget, SearchOverPaths
from rollflow.search.paths import LONGEST_STEP
from rollflow.search.rbf.acceptance import ACCEPTANCES, AtLeast, BestSoFar, OverQuantile
from rollflow.search.rbf.quota import QUOTAS, UniformQuota, WeightedQuota
from rollflow.search.smc.potentials import POTENTIALS, DifferencePotential
from rollflow.search.smc.tempering import TEMPERINGS, AdaptiveTempering, GeometricTempering, NoTempering
from rollflow.search.smc.weighing import Weighing


def test_defaults() -> None:
    """As the searches' own docstrings have them, of the papers where those say so."""
    assert (CoDe().streams, CoDe().block) == (2, 2)
    assert (SVDD().streams, SVDD().temperature, SVDD().ratio) == (2, 0.0, 1.0)
    assert SearchOverPaths() == SearchOverPaths(2, 5, 0.12, 0.78, 0.81)
    assert RolloverBudget() == RolloverBudget(2, 25, BestSoFar(), UniformQuota())
    assert SMC() == SMC(DifferencePotential(), 0.5, Systematic(), 1.0, NoTempering(), 1.0, False, None)
    assert (OverQuantile().q, AtLeast()) == (0.8, AtLeast(5, BestSoFar()))
    assert (GeometricTempering().rate, AdaptiveTempering().keep) == (None, 0.5)
    assert LONGEST_STEP == 0.3


def test_what_the_searches_say_of_themselves() -> None:
    """Those that follow the ODE say so, beams take DDIM. All but two spend the same whatever happens."""
    kernels = {name: search.default_kernel for name, search in SEARCHES.items() if search.default_kernel is not None}
    ode = dict.fromkeys(("paths", "halving", "zero-order"), "ode")
    assert kernels == {**ode, "auto": "ddim", "beam": "ddim"}
    assert {name for name, search in SEARCHES.items() if not search.exact} == {"dfs", "threshold"}
    searches = (BestOfN(), SearchOverPaths(), SMC(), CoDe(), SVDD())
    assert [search.populations for search in searches] == [1] * 5
    assert [RolloverBudget(chains).populations for chains in (1, 2, 3)] == [1, 2, 3]


def test_nothing_is_weighed_at_first() -> None:
    weighing = Weighing.equal(3)
    assert (weighing.log_z, weighing.gamma, weighing.ess, weighing.resamplings) == (0.0, (), (), 0)
    assert (weighing.log_w.tolist(), weighing.tilt.tolist(), weighing.root.tolist()) == ([0] * 3, [0] * 3, [0, 1, 2])
    assert (weighing.memory, weighing.over) == (None, False)


@pytest.mark.parametrize(
    ("registry", "what"),
    [
        (SEARCHES, "method"),
        (ACCEPTANCES, "acceptance"),
        (QUOTAS, "quota schedule"),
        (POTENTIALS, "potential"),
        (TEMPERINGS, "tempering"),
    ],
    ids=lambda one: str(one)[:10],
)
def test_an_unknown_name_is_called_what_it_is(registry: Any, what: str) -> None:
    with pytest.raises(UnknownName, match=f"^unknown {what} 'nothing-of-the-kind'"):
        registry.resolve("nothing-of-the-kind")


@pytest.mark.parametrize(
    ("kind", "setting", "allowed", "refused"),
    [
        (CoDe, "streams", (1, 2), (0, -1)),
        (CoDe, "block", (1, 2), (0, -1)),
        (SVDD, "streams", (1, 2), (0, -1)),
        (SVDD, "temperature", (0.0, 0.5), (-0.5,)),
        (SVDD, "ratio", (0.01, 1.0), (0.0, -0.5, 1.5)),
        (SearchOverPaths, "streams", (1, 2), (0, -1)),
        (SearchOverPaths, "copies", (1, 2), (0, -1)),
        (SearchOverPaths, "start", (0.01, 0.22), (0.0, -0.5, 0.23, 1.0)),
        (SearchOverPaths, "forward", (0.01, 0.8), (0.0, -0.5, 0.81, 0.9)),
        (SearchOverPaths, "back", (0.79, 1.5), (0.78, 0.5, -1.0)),
        (RolloverBudget, "chains", (1, 2), (0, -1)),
        (RolloverBudget, "initial", (1, 2), (0, -1)),
        (OverQuantile, "q", (0.0, 0.5), (-0.5, 1.0, 1.5)),
        (AtLeast, "draws", (1, 2), (0, -1)),
        (SMC, "temperature", (0.01, 5.0), (0.0, -0.5)),
        (SMC, "particles", (2, 3, None), (1, 0)),
        (SMC, "threshold", (0.0, 0.5, 1.0), (-0.5, 1.5)),
        (SMC, "ratio", (0.01, 1.0), (0.0, -0.5, 1.5)),
        (GeometricTempering, "rate", (0.01, 2.0, None), (0.0, -0.5)),
        (AdaptiveTempering, "keep", (0.01, 0.99), (0.0, -0.5, 1.0, 1.5)),
    ],
)
def test_bounds(kind: Any, setting: str, allowed: tuple[float, ...], refused: tuple[float, ...]) -> None:
    for value in allowed:
        assert getattr(kind(**{setting: value}), setting) == value
    for value in refused:
        with pytest.raises(BadSetting, match=setting):
            kind(**{setting: value})


@pytest.mark.parametrize(("weights", "refused"), [((0.5,), (0.0,)), ((0.01, 7.0), (1.0, -0.5)), ((1.0,), ())])
def test_bounds_of_weights(weights: tuple[float, ...], refused: tuple[float, ...]) -> None:
    assert WeightedQuota(weights).weights == weights
    with pytest.raises(BadSetting, match=r"weights"):
        WeightedQuota(refused)
