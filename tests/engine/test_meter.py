"""The meter: nothing beyond a cap is evaluated, and what is declared is what is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Linear
from rollflow.engine import Caps, Engine, Job, JobsFailed, Meter, Spending, Task, estimate_cost
from rollflow.engine.meter import price
from rollflow.errors import BudgetExceeded, BudgetTooSmall, RollflowError
from rollflow.models.mixture.model import ToyModel
from rollflow.requests import Asking, Decode, Grad, Request, Reward, Save, Velocity
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search import SVDD, BestOfN, Cost, Finished, Progress, Propagator, RolloverBudget, Search

NAMES = [field.name for field in fields(Caps)]
amounts = st.builds(Spending, *[st.integers(0, 5)] * len(NAMES))
limits = st.builds(Caps, *[st.none() | st.integers(0, 15)] * len(NAMES))


def test_every_cost_can_be_capped() -> None:
    assert [field.name for field in fields(Spending)] == NAMES


@given(limits, st.lists(amounts, max_size=12))
def test_debits_add_up_and_never_pass_a_cap(caps: Caps, debits: list[Spending]) -> None:
    """A debit is refused exactly when some sum would pass its cap, and then changes nothing."""
    meter, sums = Meter(caps), dict.fromkeys(NAMES, 0)
    for amount in debits:
        after = {name: sums[name] + getattr(amount, name) for name in NAMES}
        if all(getattr(caps, name) is None or after[name] <= getattr(caps, name) for name in NAMES):
            meter.debit(amount)
            sums = after
        else:
            with pytest.raises(BudgetExceeded):
                meter.debit(amount)
        assert meter.spent == Spending(**sums)


@pytest.mark.parametrize("name", NAMES)
def test_the_refusal_says_what_and_how_much(name: str) -> None:
    meter = Meter(replace(Caps(), **{name: 4}))
    meter.debit(replace(Spending(), **{name: 4}))
    with pytest.raises(BudgetExceeded, match=f"{name}: 5 would exceed the cap of 4"):
        meter.debit(replace(Spending(), **{name: 1}))
    meter.debit(replace(Spending(), **{other: 100 for other in NAMES if other != name}))


class TwoRows(ToyModel):
    """As with classifier-free guidance."""

    rows_per_nfe = 2


X, T = torch.ones(3, 1), torch.ones(3)


@pytest.mark.parametrize(
    ("request_", "spending"),
    [
        (Velocity(X, T), Spending(3, 6)),
        (Grad(X, T, 0.5), Spending(3, 6, 3, 3, 3)),
        (Reward(X, 0.5), Spending(0, 0, 3, 3)),
        (Decode(X), Spending(0, 0, 0, 3)),
        (Save(None), Spending()),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_price_of_a_request(line: ToyModel, request_: Request, spending: Spending) -> None:
    assert price(request_, TwoRows(line.mixtures)) == spending
    assert price(request_, line) == replace(spending, network_rows=spending.nfe)


class Counting(ToyReward):
    probed = False

    def __init__(self) -> None:
        super().__init__()
        self.samples = 0

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.samples += len(samples)
        return super().score(samples, prompts)


@pytest.mark.parametrize(
    ("caps", "rows", "scored"),
    [
        (Caps(network_rows=3), 0, 0),
        (Caps(network_rows=11), 8, 8),
        (Caps(reward_calls=3), 4, 0),
        (Caps(reward_calls=15), 16, 12),
        (Caps(decodes=7), 8, 4),
        (Caps(decodes=16), 16, 12),
        (Caps(decodes=0), 0, 0),
    ],
    ids=str,
)
def test_a_refused_request_is_never_evaluated(spy: Any, caps: Caps, rows: int, scored: int) -> None:
    """Model and reward see what was paid for and no row more; four steps of four rows each.

    What was scored until then is not lost: the best of it is returned, and its decode was paid for in advance.
    """
    judge = Counting()
    job = Job(Task(spy, "wide", judge), SVDD(1), 16, sampler=Sampler(Linear(), steps=4), caps=caps)
    if scored == 0:
        with pytest.raises(JobsFailed) as failed:
            Engine().run([job])
        assert isinstance(failed.value.failures[0], BudgetExceeded)
    else:
        [result] = Engine().run([job])
        assert result.interrupted
        assert result.reward == result.trace[-1].reward
        assert result.spent.decodes == scored + 1
    assert (spy.rows, judge.samples) == (rows, scored)


def test_caps_that_suffice_change_nothing(line: ToyModel, toy_reward: ToyReward) -> None:
    """The exact declared amounts as caps."""
    search, sampler = RolloverBudget(2, 3), Sampler(VP(), steps=4)
    spending = estimate_cost(line, search, sampler, 60)
    caps = Caps(spending.nfe, spending.network_rows, spending.reward_calls, spending.decodes, 0)
    task = Task(line, "left", toy_reward)
    free, capped = Engine().run([Job(task, search, 60, 1, sampler), Job(task, search, 60, 1, sampler, caps)])
    assert torch.equal(free.sample, capped.sample)
    assert capped.spent == spending


class Greedy(Search):
    """Declares one NFE and asks for two."""

    name = "greedy"

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return 1

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        return Cost(1, 1, 1)

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [1]

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        return (yield from propagator.finish((yield from propagator.start([0, 1], [0, 0]))))


@pytest.mark.parametrize("caps", [Caps(), Caps(nfe=100)], ids=str)
def test_the_budget_is_a_cap_whatever_the_search_says(spy: Any, toy_reward: ToyReward, caps: Caps) -> None:
    job = Job(Task(spy, "left", toy_reward), Greedy(), 1, caps=caps)
    with pytest.raises(JobsFailed, match="nfe: 2 would exceed the cap of 1"):
        Engine().run([job])
    assert spy.calls == []


def test_a_dry_run_refuses_what_a_job_refuses(line: ToyModel, toy_reward: ToyReward) -> None:
    with pytest.raises(BudgetTooSmall, match="smallest budget is 50 NFE") as error:
        estimate_cost(ToyModel, RolloverBudget(2, 12), Sampler(Linear(), steps=14), 49)
    assert error.value.smallest == 50
    task = Task(line, "left", toy_reward)
    with pytest.raises(RollflowError, match="nfe must be a whole number >= 1, not 0"):
        Job(task, BestOfN(), 0)
    with pytest.raises(RollflowError, match="seed must be a whole number >= 0, not -1"):
        Job(task, BestOfN(), 20, seed=-1)
    with pytest.raises(RollflowError, match=f"seed must be a whole number <= {2**63 - 1}, not {2**63}"):
        Job(task, BestOfN(), 20, seed=2**63)
