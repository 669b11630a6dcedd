"""What the journal tells of a job that is done."""

from __future__ import annotations

from typing import Any

import torch

from rollflow.engine import Result
from rollflow.engine.record import digest, plain, versions


def record_of(result: Result) -> dict[str, Any]:
    """All of a result that tables and plots are made of, and what a replay is held against, in JSON's own types."""
    spent, device = result.spent, result.job.task.model.device
    return {
        "reward": result.reward,
        "parts": plain(result.parts),
        "held_out": plain(result.held_out),
        **({"missing": result.missing} if result.missing else {}),
        **({"ineligible": result.ineligible} if result.ineligible else {}),
        **({"warnings": [*result.warnings]} if result.warnings else {}),
        "nfe": spent.nfe,
        "network_rows": spent.network_rows,
        "reward_calls": spent.reward_calls,
        "decodes": spent.decodes,
        "backward_passes": spent.backward_passes,
        "noise_level": result.noise_level,
        "seconds": round(result.seconds, 4),
        "trace": [[point.nfe, point.reward] for point in result.trace],
        "diagnostics": [plain(one) for one in result.diagnostics],
        "sha256": digest(result.sample),
        "device": None if device is None else str(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
