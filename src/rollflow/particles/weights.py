"""Importance weights, in log space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rollflow.errors import RollflowError


def _from_the_largest(log_w: Tensor) -> tuple[float, Tensor]:
    """The largest log-weight, and the weights in units of the weight that it belongs to."""
    top = float(log_w.max())
    if not top < math.inf:
        raise RollflowError(f"log-weights must be below +inf and no NaN; got {log_w.tolist()}")
    if top == -math.inf:
        raise RollflowError(
            f"all {len(log_w)} particles have weight 0, so that none can go on; take more particles, a higher "
            "temperature or tempering"
        )
    return top, torch.exp(log_w - top)


def log_mean(log_w: Tensor) -> float:
    """log of the mean of exp(log_w).

    Args:
        log_w: (N,) float64, each in [-inf, inf).

    Raises:
        RollflowError: If every weight is 0.
    """
    top, w = _from_the_largest(log_w)
    return top + math.log(float(w.mean()))


def normalised(log_w: Tensor) -> Tensor:
    """Weights that sum to 1, (N,); argument and error as of ``log_mean``."""
    _, w = _from_the_largest(log_w)
    return w / w.sum()


def ess(log_w: Tensor) -> float:
    """Effective sample size (sum w)^2 / sum w^2, from 1 to exactly N where all are equal; as ``log_mean``."""
    _, w = _from_the_largest(log_w)
    return float(w.sum() ** 2 / w.square().sum())
