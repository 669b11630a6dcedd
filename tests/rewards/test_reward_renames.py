"""Rewards written for the first release still say of themselves what they said."""

from __future__ import annotations

import pytest

from rollflow.rewards.toy import ToyReward


def test_a_reward_elsewhere_is_remote() -> None:
    with pytest.warns(DeprecationWarning, match=r"Far\.elsewhere is now called remote"):

        class Far(ToyReward):
            elsewhere = True

    assert Far.remote is True
    assert ToyReward.remote is False
