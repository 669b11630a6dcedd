"""Importance weights, in log space."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.errors import RollflowError


def _from_the_largest(log_w: Float64[Tensor, " N"]) -> tuple[float, Float64[Tensor, " N"]]:
    """Return the largest log-weight, and all weights divided by the largest."""
    top = float(log_w.max())
    if not top < math.inf:
        raise RollflowError(f"expected log-weights below +inf and not NaN; got {log_w.tolist()}")
    if top == -math.inf:
        raise RollflowError(
            f"all {len(log_w)} particles have weight 0, so none can be continued; use more particles, a higher "
            "temperature or tempering"
        )
    return top, torch.exp(log_w - top)


def log_mean(log_w: Float64[Tensor, " N"]) -> float:
    """Return the logarithm of the mean of exp(log_w).

    Args:
        log_w: (N,) float64 log-weights in [-inf, inf).

    Raises:
        RollflowError: If every weight is 0.
    """
    top, w = _from_the_largest(log_w)
    return top + math.log(float(w.mean()))


def normalised(log_w: Float64[Tensor, " N"]) -> Float64[Tensor, " N"]:
    """Return weights that sum to 1; argument and error as in ``log_mean``."""
    _, w = _from_the_largest(log_w)
    return w / w.sum()


def ess(log_w: Float64[Tensor, " N"]) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2, from 1 to exactly N if all weights are equal.

    Argument and error as in ``log_mean``.
    """
    _, w = _from_the_largest(log_w)
    return float(w.sum() ** 2 / w.square().sum())
