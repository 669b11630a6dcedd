"""Recombination: the noise of one more child is made of its siblings' noises and rewards."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rollflow.dynamics.shapes import States

LEAST = 3
"""Smallest number of siblings whose noises are recombined; fewer say too little of the direction."""


def recombined(noises: States, reward: Float64[Tensor, " B"]) -> Float[Tensor, " 1 *state"] | None:
    """Return the noise that siblings' noises and rewards point to; None if they do not tell a direction.

        z* = sqrt(d) w / |w|,    w = sum_j (r_j - mean r) z_j

    with d the number of elements of a noise. By Stein's identity w estimates the gradient of the expected reward in the
    noise, without a backward pass: where the reward is locally linear, the best of M siblings gains sqrt(2 ln M) times
    its slope, and z* about sqrt(M) times. z* has the norm that a Gaussian draw has in the mean, but not its law, so
    that no search whose weights need the law of the kernel can use it.

    Yeh, Lee & Chen 2025, arXiv 2410.05760 ("Demon", there as the only move of every step, without selection among the
    siblings). Deviation: siblings with a reward of -inf are left out, of the mean too.

    Args:
        noises: (B, ...) noises of the siblings.
        reward: (B,) float64 rewards of the siblings.

    Returns:
        (1, ...) noise; None if fewer than ``LEAST`` siblings have a finite reward, or all such rewards are equal.
    """
    finite = reward.isfinite()
    reward = reward[finite]
    if len(reward) < LEAST or bool((reward == reward[0]).all()):
        return None
    weights = reward - reward.mean()
    return combined(noises[finite], weights / weights.abs().max())


def combined(noises: States, weights: Float64[Tensor, " B"]) -> Float[Tensor, " 1 *state"] | None:
    """Return the weighted sum of noises at the length sqrt(d) of a typical noise; None if the sum is 0.

    Args:
        noises: (B, ...) noises of d elements each.
        weights: (B,) float64 weights of any sign.
    """
    w = torch.einsum("b,b...->...", weights, noises.double())
    norm = float(w.norm())
    return (w * (math.sqrt(w.numel()) / norm)).to(noises)[None] if norm > 0 else None
