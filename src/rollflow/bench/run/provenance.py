"""With what an experiment is run: what tells its model and its rewards from others of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollflow.engine.record import versions
from rollflow.models import DiffusersModel, FlowModel
from rollflow.rewards import RewardModel


def provenance_of(model: FlowModel, reward: RewardModel, held_out: Sequence[RewardModel]) -> dict[str, Any]:
    """What ``identities.json`` says; the rewards are loaded.

    The precision of a pipeline is its device's where it was not asked for, and devices may differ.
    """
    told = versions()
    return {
        "model": model.identity,
        **({"dtype": str(model.calls.pipeline.dtype)} if isinstance(model, DiffusersModel) else {}),
        "reward": reward.identity,
        "held_out": [judge.identity for judge in held_out],
        "versions": {name: told[name] for name in ("rollflow", "torch")},
    }
