"""How many of its last children a beam finishes, and what that costs."""

from __future__ import annotations

import pytest

from rollflow.dynamics.interpolants import VP, Linear
from rollflow.engine import Engine, Job, Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search.beam import Beam

PAID, FREE = Sampler(VP(), steps=5), Sampler(Linear(), steps=5)


@pytest.mark.parametrize("nfe", [12, 30, 61, 90])
@pytest.mark.parametrize("finalists", [1, 3, 8])
@pytest.mark.parametrize("sampler", [PAID, FREE], ids=["paid", "free"])
def test_finalists_are_paid_from_the_same_budget(line: ToyModel, nfe: int, finalists: int, sampler: Sampler) -> None:
    """All of it is spent, up to what finishing one more would take where there are fewer last children than wanted."""
    search = Beam(finalists=finalists)
    [result] = Engine().run([Job(Task(line, "left", ToyReward()), search, nfe, 1, sampler)])
    each = sampler.bind(line).finish_nfe
    assert (each > 0) is (sampler is PAID)
    assert nfe - each <= result.spent.nfe <= nfe
    calls = result.spent.reward_calls - result.spent.nfe  # one for each evaluation, and for each that is finished
    if sampler is FREE:
        assert calls == 0
    elif nfe == 90 or (finalists < 8 and nfe == 61):
        assert calls == finalists * (1 - each)


def test_one_is_what_there_was(line: ToyModel) -> None:
    jobs = [Job(Task(line, "left", ToyReward()), search, 61, 1, FREE) for search in (Beam(), Beam(finalists=4))]
    one, four = Engine().run(jobs)
    assert one.sample.equal(four.sample)  # finishing is free, so that the best last child is the best finished one
    assert one.spent == four.spent
    with pytest.raises(BadSetting, match="finalists of beam must be a whole number >= 1, not 0"):
        Beam(finalists=0)
