"""Recombination: the noise of one more child is made of the noises and rewards of the others."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from rollflow.dynamics.shapes import States

LEAST = 3
"""Smallest number of children whose noises are recombined; fewer say too little of the direction."""


def recombined(
    noises: States, reward: Float64[Tensor, " B"], family: Int64[Tensor, " B"] | None = None
) -> Float[Tensor, " 1 *state"] | None:
    """Return the noise that children's noises and rewards point to; None if they do not tell a direction.

        z* = sqrt(d) w / |w|,    w = sum_j (r_j - mean r of j's family) z_j

    with d the number of elements of a noise. By Stein's identity w estimates the gradient of the expected reward in the
    noise, without a backward pass: where the reward is locally linear, the best of M siblings gains sqrt(2 ln M) times
    its slope, and z* about sqrt(M) times. z* has the norm that a Gaussian draw has in the mean, but not its law, so
    that no search whose weights need the law of the kernel can use it.

    Yeh, Lee & Chen 2025, arXiv 2410.05760 ("Demon", there as the only move of every step, without selection among the
    siblings). Deviations: children with a reward of -inf are left out, of the mean too; and the children of several
    parents may have a part in one noise, since parents that are chosen together have similar slopes.

    Args:
        noises: (B, ...) noises of the children.
        reward: (B,) float64 rewards of the children.
        family: (B,) int64 number of each child's parent; None if all are siblings.

    Returns:
        (1, ...) noise; None if fewer than ``LEAST`` children have a finite reward, or those of every parent are equal.
    """
    finite = reward.isfinite()
    noises, reward = noises[finite], reward[finite]
    if len(reward) < LEAST:
        return None
    family = torch.zeros(len(reward), dtype=torch.int64) if family is None else family[finite]
    weights = torch.zeros_like(reward)
    for siblings in (family == parent for parent in set(family.tolist())):
        of_parent = reward[siblings]
        if bool((of_parent != of_parent[0]).any()):  # the mean of equal rewards may be rounded
            weights[siblings] = of_parent - of_parent.mean()
    return combined(noises, weights / weights.abs().max()) if bool(weights.any()) else None


def combined(noises: States, weights: Float64[Tensor, " B"]) -> Float[Tensor, " 1 *state"] | None:
    """Return the weighted sum of noises at the length sqrt(d) of a typical noise; None if the sum is 0.

    Args:
        noises: (B, ...) noises of d elements each.
        weights: (B,) float64 weights of any sign.
    """
    w = torch.einsum("b,b...->...", weights, noises.double())
    norm = float(w.norm())
    return (w * (math.sqrt(w.numel()) / norm)).to(noises)[None] if norm > 0 else None
