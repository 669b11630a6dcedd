"""Held-out rewards along the path, and the warning when the reward rises at their expense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.tiny import Judge, registered  # noqa: F401
from torch import Tensor

from rollflow.api import Plan, run
from rollflow.engine import Result
from rollflow.output.outputs import summary
from rollflow.output.overoptimization import Judged, along, warnings
from rollflow.output.recorder import Recorder
from rollflow.rewards import REWARDS


class Contrary(Judge):
    """Likes what the reward does not."""

    name = "contrary"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return -super().score(samples, prompts)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[Result, Result, Recorder]:
    """A search, its plain sample and what watched it."""
    monkeypatch.setitem(REWARDS, "contrary", Contrary)
    recorder = Recorder()
    plan = Plan("a red square", method="rbf", nfe=90, seed=3, held_out=["judge", "contrary"])
    return run(plan.job(), [recorder]), run(plan.baseline()), recorder


def test_the_path_is_scored_by_those_that_the_search_does_not_see(recorded: Any) -> None:
    """Each estimate by each; it ends in the result, whose scores are known; no part of the account."""
    result, _, recorder = recorded
    spent = result.spent
    path = along(result, recorder)
    assert [point.noise_level for point in path] == [frame.noise_level for frame in recorder.path(result)]
    assert len(path) == 10
    assert path[-1] == Judged(0.0, result.reward, result.held_out)
    frame = recorder.path(result)[4]
    sample = result.job.task.model.decode(frame.x0[None])
    told = float(Judge().score(sample, ["a red square"]))
    assert path[4].held_out == {"judge": pytest.approx(told), "contrary": pytest.approx(-told)}
    assert path[4].reward == frame.reward
    assert result.spent == spent


def test_a_reward_at_the_expense_of_another_is_warned_of(recorded: Any) -> None:
    """Against the plain sample, which is the first that is compared; not of those that rose along with it."""
    result, plain, _ = recorded
    assert result.reward > plain.reward
    [warning] = warnings(result, plain, [])
    assert warning.startswith("over-optimised? From the plain sample on, caption rose (")
    assert "held-out contrary fell (" in warning
    assert warnings(replace(result, held_out={"judge": result.held_out["judge"]}), plain, []) == []
    assert warnings(plain, result, []) == []


def test_a_peak_on_the_path_is_warned_of(recorded: Any) -> None:
    """The last of a path is compared with the one that the held-out reward liked best."""
    result, _, _ = recorded
    reward = result.reward
    result = replace(result, held_out={"judge": 0.5})
    rising = [Judged(0.9, reward - 3, {"judge": 0.2}), Judged(0.5, reward - 2, {"judge": 0.4})]
    assert warnings(result, None, rising) == []
    [warning] = warnings(result, None, [*rising, Judged(0.2, reward - 1, {"judge": 0.8})])
    assert "From the estimate at noise level 0.20 on" in warning
    assert warnings(result, None, [*rising, Judged(0.2, reward + 1, {"judge": 0.8})]) == [], "both fell"
    assert warnings(result, None, [*rising, Judged(0.2, float("nan"), {"judge": 0.8})]) == [], "never asked"


def test_it_is_in_the_account(recorded: Any) -> None:
    result, plain, recorder = recorded
    content = summary(result, recorder, 1.0, plain, along(result, recorder))
    assert content["warnings"] == warnings(result, plain, along(result, recorder))
    level, reward, told = content["path"][-1]
    assert (level, reward, told) == (0.0, result.reward, result.held_out)
    assert "path" not in summary(result, recorder, 1.0, plain)
