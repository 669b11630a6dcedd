"""Which rewards are 0 exactly where all is as asked for, wherever that is asked: class, copy, server, mixture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rollflow.engine import Task
from rollflow.errors import BadSetting
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.rewards import REWARDS, RewardModel
from rollflow.rewards.checks import check_attributes
from rollflow.rewards.counting.counting import Counting, CountingAccuracy
from rollflow.rewards.mixing import WeightedSum
from rollflow.rewards.remote.client import RemoteReward
from rollflow.rewards.remote.wire import Info
from rollflow.rewards.toy import ToyReward

POINT = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.ones(1))


class Exact(ToyReward):
    name = "exact"
    zero_is_perfect = True


def test_of_the_named_rewards_those_that_count_errors() -> None:
    assert {name for name, kind in REWARDS.items() if kind.zero_is_perfect} == {"count", "judge", "counting"}
    assert all(kind.bounds == (-torch.inf, 0) for kind in REWARDS.values() if kind.zero_is_perfect)


def test_zero_of_counting_is_one_of_its_accuracy() -> None:
    found, wanted = torch.tensor([[3, 1], [3, 2], [0, 1]]), torch.tensor([[3, 1], [3, 1], [3, 1]])
    errors = Counting.compare(Counting.__new__(Counting), found, wanted)
    right = CountingAccuracy.compare(CountingAccuracy.__new__(CountingAccuracy), found, wanted)
    assert errors.tolist() == [0, -1, -9]
    assert (errors == 0).tolist() == right.bool().tolist() == [True, False, False]


def test_a_result_without_its_networks_still_knows() -> None:
    task = Task(ToyModel({"": POINT}), "", Exact(), (ToyReward(),)).described
    assert (task.reward.zero_is_perfect, task.held_out[0].zero_is_perfect) == (True, False)


def test_a_mixture_is_not_one_of_its_parts() -> None:
    assert not WeightedSum((Exact(), ToyReward())).zero_is_perfect


@pytest.mark.parametrize(("sent", "known"), [({}, False), ({"zero_is_perfect": True}, True)], ids=["old", "new"])
def test_a_server_says_so_and_an_older_one_need_not(sent: dict[str, Any], known: bool) -> None:
    info: dict[str, Any] = {
        "name": "exact", "identity": "exact", "description": "d", "range": None, "differentiable": False,
        "structured": False, "held_out": [], "batch_size": 1, "max_rows": 1, "max_bytes": 1, "versions": {},
    }  # fmt: skip
    reward: RewardModel = RemoteReward()
    vars(reward)["_info"] = Info.model_validate({**info, **sent})
    reward.load()
    assert reward.zero_is_perfect is known


def test_it_is_true_or_false() -> None:
    reward = Exact()
    reward.zero_is_perfect = "count"  # type: ignore[assignment]
    with pytest.raises(BadSetting, match="reward 'exact': zero_is_perfect must be True or False, not 'count'"):
        check_attributes(reward)
