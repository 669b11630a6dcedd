"""Methods as the release of arXiv 2503.19385 runs them, and the dynamics that methods choose for a model."""

from __future__ import annotations

import pytest

from rollflow.api import Plan
from rollflow.bench.run.preset_arms import DYNAMICS, published_arms, table_arms
from rollflow.dynamics.grids import Arc, Uniform
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, Euler, EulerMaruyama, Kernel, Power
from rollflow.dynamics.lookahead import Tweedie
from rollflow.errors import BadSetting
from rollflow.options import sampling_of
from rollflow.sampler import Sampler
from rollflow.search import BFS, SMC, SVDD, BestOfN, CoDe, RolloverBudget, Search, SearchOverPaths
from rollflow.search.keeping import AllCopies
from rollflow.search.published import PUBLISHED, as_published
from rollflow.search.rbf.quota import PublishedQuota, WeightedQuota

PROMPT = "three cats on grass background"
MODELS = ["scenes-base", "scenes-turbo"]
VP_SDE = Sampler(VP(), EulerMaruyama(Power(3.0, 2.0)), Arc(), 10, Tweedie(), finish=False)
LINEAR_ODE = Sampler(Linear(), Euler(), Uniform(), 10, Tweedie(), finish=False)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("method", "search", "sampler", "spent"),
    [
        ("bon", BestOfN(), LINEAR_ODE, 500),
        ("paths", SearchOverPaths(2, 5, 0.12, 0.78, 0.81, AllCopies()), LINEAR_ODE, 500),
        ("smc", SMC(temperature=0.5, threshold=1.0), VP_SDE, 500),
        ("code", CoDe(2, 2, noises=False), VP_SDE, 500),
        ("svdd", SVDD(2, noises=False), VP_SDE, 500),
        ("rbf", RolloverBudget(2, 25, quota=PublishedQuota()), VP_SDE, 498),
    ],
)
def test_as_published(model: str, method: str, search: Search, sampler: Sampler, spent: int) -> None:
    plan = Plan(PROMPT, model=model, method=method, nfe=500, as_published=True)
    assert (plan.search, plan.sampler) == (search, sampler)
    assert 0 <= spent - plan.cost().nfe < (2 if method == "paths" else 1)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("model", MODELS)
def test_the_preset_is_the_option(model: str) -> None:
    """Each arm is the plan with the option, along the interpolant and with the kernel of its row."""
    arms, ours = published_arms(500), table_arms(500)
    assert [arm.name for arm in arms] == [arm.name for arm in ours]
    for arm, like in zip(arms[1:], ours[1:], strict=True):
        dynamics = DYNAMICS[arm.name.partition(", ")[2]]
        option = Plan(PROMPT, model=model, method=like.method, nfe=500, as_published=True, **dynamics)
        plan = Plan(PROMPT, model=model, method=arm.method, nfe=500, **sampling_of(arm))
        assert (plan.search, plan.sampler) == (option.search, option.sampler)


def test_what_is_given_stays() -> None:
    given = RolloverBudget(4, 10, quota=WeightedQuota((2.0, 1.0)))
    assert as_published(given) == given
    plan = Plan(PROMPT, method="svdd(streams=3)", kernel=DDIM(), steps=5, finish=True, as_published=True)
    assert plan.search == SVDD(3, noises=False)
    assert plan.sampler == Sampler(VP(), DDIM(), Arc(), 5, finish=True)
    linear = Plan(PROMPT, method="rbf", interpolant="linear", as_published=True).sampler
    assert linear == Sampler(Linear(), EulerMaruyama(), Uniform(), 10, finish=False)


def test_a_plain_sample_is_never_as_published() -> None:
    plan = Plan(PROMPT, method="rbf", as_published=True).baseline().plan
    assert (plan["as_published"], plan["method"], plan["finish"]) == (False, "bon", None)


@pytest.mark.parametrize("method", ["beam", "demon", "halving"])
def test_methods_that_the_release_does_not_have_are_refused(method: str) -> None:
    with pytest.raises(BadSetting, match=f"has no method '{method}'.*choose one of bon, paths, smc, code, svdd, rbf"):
        Plan(PROMPT, method=method, as_published=True)
    assert BFS not in PUBLISHED


@pytest.mark.parametrize(
    ("model", "method", "interpolant", "kernel"),
    [
        ("scenes-base", "bon", Linear(), EulerMaruyama()),
        ("scenes-turbo", "bon", Linear(), Euler()),
        ("scenes-base", "paths", Linear(), Euler()),
        ("scenes-turbo", "paths", Linear(), Euler()),
        ("scenes-base", "rbf", Linear(), EulerMaruyama()),
        ("scenes-turbo", "rbf", VP(), EulerMaruyama()),
        ("scenes-base", "beam", Linear(), DDIM()),
        ("scenes-turbo", "beam", Linear(), DDIM()),
        ("scenes-turbo", "halving", VP(), Euler()),
    ],
)
def test_dynamics_by_method_and_model(model: str, method: str, interpolant: Interpolant, kernel: Kernel) -> None:
    sampler = Plan(PROMPT, model=model, method=method, nfe=500).sampler
    assert (sampler.interpolant, sampler.kernel) == (interpolant, kernel)
