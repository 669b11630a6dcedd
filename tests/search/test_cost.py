"""What is declared is what is spent: for every search, kernel, look-ahead, guidance and budget; without cost code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollflow import requests
from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Cosine, Linear
from rollflow.dynamics.kernels import DDIM, GLASS, Euler, EulerMaruyama, FlowCPS, GaussianKernel, Heun
from rollflow.dynamics.lookahead import ODELookahead, Tweedie
from rollflow.engine import Engine, Job, Task, estimate_cost
from rollflow.errors import BadSetting, BudgetTooSmall, RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Asking
from rollflow.sampler import Sampler
from rollflow.search import (
    BFS,
    SMC,
    SVDD,
    BestOfN,
    CoDe,
    Cost,
    Demon,
    EpsilonGreedy,
    Finished,
    Halving,
    Progress,
    Propagator,
    RolloverBudget,
    Search,
    SearchOverPaths,
    ZeroOrder,
)
from rollflow.search.cost import largest
from rollflow.search.rbf.acceptance import OverQuantile
from rollflow.search.rbf.quota import WeightedQuota
from rollflow.search.rehearsal import rehearse
from rollflow.testing.jobs import JUDGE, MODEL
from rollflow.testing.reference import alone


@dataclass(frozen=True)
class Greedy(Search):
    """The best of M children at every step, as SVDD with one stream, and nothing said of its cost."""

    name = "greedy"

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        m = 1 + self.surplus(propagator)
        steps, particle = propagator.begin(resume)
        for step in steps:
            if step > 0:
                parent = yield from propagator.guided(particle, step - 1)
                particle = parent.rows(torch.zeros(m, dtype=torch.int64))
            particle = (yield from propagator.advance(particle, step, [0] * m, range(m))).best()
            yield from propagator.save(step, particle)
        return (yield from propagator.finish(particle))


@dataclass(frozen=True)
class Chains(Greedy):
    """Two or more of it side by side."""

    chains: int = 2
    name = "chains"

    @property
    def populations(self) -> int:
        return self.chains


OURS: list[Search] = [
    BestOfN(),
    SVDD(),
    SVDD(1, temperature=0.5, ratio=0.3),
    SMC(),
    SMC(ratio=0.4, draw=True),
    SMC(particles=3, threshold=0.5),
    CoDe(),
    CoDe(1, 3),
    RolloverBudget(2, 3),
    RolloverBudget(3, 1, OverQuantile(0.5), WeightedQuota((3.0, 1.0))),
    SearchOverPaths(1, 2, 0.2, 0.5, 0.6),
    BFS(threshold=0.5),
    Demon(),
    Demon(noises=2),
    EpsilonGreedy(3),
    Halving(),
    Halving((0.9, 0.4), (0.6, 0.2), brackets=3),
    ZeroOrder(3),
]
samplers = st.builds(
    Sampler,
    interpolant=st.sampled_from([Linear(), VP(), Cosine()]),
    kernel=st.sampled_from([Euler(), Heun(), EulerMaruyama(), DDIM(0.5), GLASS(3), FlowCPS()]),
    steps=st.integers(1, 6),
    lookahead=st.sampled_from([Tweedie(), ODELookahead(1), ODELookahead(3)]),
    finish=st.sampled_from([None, True, False]),
    guidance=st.sampled_from([None, DPS(0.1)]),
)


def refuses(search: Search, sampler: Sampler) -> bool:
    """Whether a search says that it cannot be guided with this kernel."""
    gaussian = isinstance(sampler.kernel, GaussianKernel) and sampler.kernel.stochastic
    return isinstance(search, SMC) and sampler.guidance is not None and not gaussian


@pytest.mark.filterwarnings("ignore:paths has too few steps:rollflow.errors.RollflowWarning")
@settings(max_examples=80)
@given(st.sampled_from([*OURS, Greedy(), Chains(chains=3)]), samplers, st.integers(0, 40))
@pytest.mark.slow
def test_the_dry_run_is_what_is_spent(search: Search, sampler: Sampler, spare: int) -> None:
    """NFE, network rows, reward calls, decodes and backward passes; and the refusal names the smallest budget."""
    dynamics = sampler.bind(MODEL)
    if refuses(search, sampler):
        with pytest.raises(BadSetting, match="Gaussian kernel"):
            search.smallest_nfe(dynamics)
        return
    smallest = search.smallest_nfe(dynamics)
    with pytest.raises(BudgetTooSmall) as refused:
        search.cost(dynamics, smallest - 1)
    assert (refused.value.method, refused.value.smallest) == (search.name, smallest)
    job = Job(Task(MODEL, "left", JUDGE), search, smallest + spare, 3, sampler)
    told = estimate_cost(MODEL, search, sampler, job.nfe)
    assert alone(job).spent == told
    assert told.nfe <= job.nfe
    if search.populations == 1:
        assert search.cost(dynamics, told.nfe) == search.cost(dynamics, job.nfe)


@settings(max_examples=100)
@given(st.sampled_from(OURS), samplers, st.integers(0, 200))
def test_a_schedule_is_what_its_population_asks_for(search: Search, sampler: Sampler, surplus: int) -> None:
    """Where all rewards are equal, too, which no real run meets."""
    if not refuses(search, sampler):
        dynamics = sampler.bind(MODEL)
        assert rehearse(search.population, dynamics, surplus) == search.price(dynamics, surplus)


def test_a_search_needs_no_cost_code(line: ToyModel) -> None:
    """It ends as SVDD with one stream does, which has a schedule, in budgets that divide evenly."""
    sampler, task = Sampler(Linear(), steps=4), Task(line, "left", JUDGE)
    ours, theirs = Engine().run([Job(task, search, 24, 2, sampler) for search in (Greedy(), SVDD(1))])
    assert torch.equal(ours.sample, theirs.sample)
    assert ours.spent == theirs.spent
    dynamics = sampler.bind(line)
    assert Greedy().smallest_nfe(dynamics) == 4
    assert Greedy().cost(dynamics, 27) == Cost(24, 24, 24)
    assert Greedy().shares(dynamics, 27) == [24]
    assert Chains(chains=2).smallest_nfe(dynamics) == 8
    assert Chains(chains=2).cost(dynamics, 27) == Cost(24, 24, 24)
    assert Chains(chains=2).shares(dynamics, 27) == [13, 14]


def test_the_cost_is_that_of_a_population_without_a_budget(line: ToyModel) -> None:
    """Which counts the units that it is to buy; but for one rehearsal more, which tries what a budget would change."""
    seen: list[tuple[int, int]] = []

    class Looking(Greedy):
        def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
            seen.append((propagator.nfe, self.surplus(propagator)))
            return (yield from super().population(propagator, resume))

    dynamics = Sampler(Linear(), steps=4).bind(line)
    assert Looking().smallest_nfe(dynamics) == 4
    assert Looking().price(dynamics, 3).nfe == 16
    assert seen == [(0, 0), (0, 3)]
    assert Looking().cost(dynamics, 13).nfe == 12
    assert {nfe for nfe, _ in seen} == {0, 13}
    assert [surplus for nfe, surplus in seen if nfe == 13] == [2]


def test_a_search_that_counts_its_budget_beside_its_units_is_told_so(line: ToyModel) -> None:
    class Both(Greedy):
        def surplus(self, propagator: Propagator) -> int:
            return super().surplus(propagator) + (propagator.nfe > 0)

    with pytest.raises(RollflowError, match=r"sizes itself by propagator\.nfe: where that is 13 it spends 16 NFE"):
        Both().cost(Sampler(Linear(), steps=4).bind(line), 13)


def test_requests_of_a_search_by_itself_are_counted(line: ToyModel) -> None:
    """Those that it makes without the propagator, of every kind."""

    class Asker(Greedy):
        exact = False

        def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
            x = propagator.noise.normals(0, [0, 1], [0, 0]) + propagator.noise.normal(0, 0, 0)
            v = yield from requests.velocity(x, propagator.time(0))
            rewards = yield from requests.reward(x - v, 0.5)
            slope = yield from requests.grad(x[:1], propagator.time(0), 1.0)
            shown = yield from requests.decode(x)
            assert (rewards.shape, slope.reward.shape, shown.shape) == ((2,), (1,), x.shape)
            return (yield from super().population(propagator, resume))

    dynamics = Sampler(Linear(), steps=3).bind(line)
    assert Asker().cost(dynamics, 20) == Cost(18, 18, 20, exact=False, backward_passes=1)
    assert Asker().smallest_nfe(dynamics) == 6


def test_what_a_search_says_of_its_cost_itself_goes_first(line: ToyModel) -> None:
    class Careful(Greedy):
        def cost(self, dynamics: object, nfe: int) -> Cost:
            return Cost(nfe, nfe, nfe, exact=False)

    dynamics = Sampler(Linear(), steps=3).bind(line)
    assert Careful().cost(dynamics, 7) == Cost(7, 7, 7, exact=False)
    assert Careful().shares(dynamics, 7) == [7]


@pytest.mark.parametrize(
    "price",
    [
        lambda n: 3 * n + 5,
        lambda n: 5 + 7 * (n // 10),
        lambda n: 5,
        lambda n: n**2,
        lambda n: 2**n,
        lambda n: 5 + (n > 3) * 10**6,
        lambda n: int(n**0.5),
    ],
)
@pytest.mark.parametrize("budget", [5, 6, 97, 1000])
def test_the_largest_that_is_within_a_budget(price: Callable[[int], int], budget: int) -> None:
    asked: list[int] = []

    def priced(n: int) -> int:
        asked.append(n)
        return price(min(n, 10**4))

    assert largest(priced, budget) == max(n for n in range(budget + 1) if price(min(n, 10**4)) <= budget)
    assert len(asked) < 30


@pytest.mark.parametrize(
    ("price", "budget", "questions"),
    [
        (lambda n: 3 * n + 5, 1000, [0, 1, 331, 332]),
        (lambda n: int(n**0.5), 97, [0, 1, 97]),
        (lambda n: 5 + (n > 3) * 10**6, 97, [0, 1, 49, 2, 25, 3, 14, 4]),
        (lambda n: 2**n, 97, [0, 1, 96, 2, 64, 3, 41, 4, 25, 14, 9, 6, 7]),
        (lambda n: max(n, 9 * n - 400), 97, [0, 1, 97, 20, 96, 35, 95, 47, 94, 70, 58, 52, 55, 56]),
    ],
)
def test_few_prices_are_asked_for(price: Callable[[int], int], budget: int, questions: list[int]) -> None:
    """Each may be a rehearsal: eight secants from 0, of which the first is right for a line, then halves."""
    asked: list[int] = []

    def priced(n: int) -> int:
        asked.append(n)
        return price(n)

    largest(priced, budget)
    assert asked == questions
