"""What the journal tells of a job that is done."""

from __future__ import annotations

import hashlib
import math
import platform
from typing import Any

import torch

import rollflow
from rollflow.engine import Result


def digest(sample: torch.Tensor) -> str:
    """SHA-256 of a sample's bytes."""
    return hashlib.sha256(sample.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def told_of(result: Result) -> dict[str, Any]:
    """All of a result that tables and plots are made of, and what a replay is held against, in JSON's own types."""
    spent, device = result.spent, result.job.task.model.device
    return {
        "reward": result.reward,
        "parts": _plain(result.parts),
        "held_out": _plain(result.held_out),
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
        "diagnostics": [_plain(one) for one in result.diagnostics],
        "sha256": digest(result.sample),
        "device": None if device is None else str(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of all that bits depend on."""
    return {"rollflow": rollflow.__version__, "torch": torch.__version__, "python": platform.python_version()}


def _plain(value: Any) -> Any:
    """Tensors as lists, numbers that JSON does not know as None."""
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
