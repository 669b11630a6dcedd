"""Provenance of an experiment: the identities of its model and rewards, and the installed versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollflow.engine.record import versions
from rollflow.models import DiffusersModel, FlowModel
from rollflow.rewards import RewardModel


def provenance_of(model: FlowModel, reward: RewardModel, held_out: Sequence[RewardModel]) -> dict[str, Any]:
    """Return the content of ``identities.json``; this loads the rewards.

    A pipeline's precision is included because, unless it is set, it depends on the device.
    """
    installed = versions()
    return {
        "model": model.identity,
        **({"dtype": str(model.calls.pipeline.dtype)} if isinstance(model, DiffusersModel) else {}),
        "reward": reward.identity,
        "held_out": [judge.identity for judge in held_out],
        "versions": {name: installed[name] for name in ("rollflow", "torch")},
    }
