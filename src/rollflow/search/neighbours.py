"""Noises near a noise, among which searches for a better noise choose."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rollflow.dynamics.shapes import States


def on_sphere(pivot: Float[Tensor, " 1 *state"], draws: States, cosine: float) -> States:
    """Return noises at one angle from a pivot, as long as it is.

        y = |n| (c n / |n| + sqrt(1 - c^2) w),    w = the draw less its part along n, of length 1

    so that w is uniform among the directions orthogonal to n. A noise with one element has no such direction: w = 0.

    Args:
        pivot: (1, ...) noise n.
        draws: (B, ...) standard normal draws.
        cosine: Cosine c of the angle between n and y.
    """
    n, z = pivot.double().flatten(1), draws.double().flatten(1)
    length = n.norm()
    u = n / length
    w = z - (z @ u.T) * u
    across = w.norm(dim=1, keepdim=True)
    w = torch.where(across > 1e-9, w / across, 0.0)
    found: Tensor = length * (cosine * u + math.sqrt(1 - cosine**2) * w)
    return found.reshape(draws.shape).to(draws)


def in_ball(pivot: Float[Tensor, " 1 *state"], draws: States, uniform: Float64[Tensor, " B"], radius: float) -> States:
    """Return noises up to a distance from a pivot, in any direction.

        y = n + u radius sqrt(d) z / |z|

    with d the number of elements of a noise, so that a radius of 1 is the length of a typical noise.

    Args:
        pivot: (1, ...) noise n.
        draws: (B, ...) standard normal draws z.
        uniform: (B,) numbers u in [0, 1).
        radius: Largest distance, > 0, in typical lengths of a noise.
    """
    z = draws.double().flatten(1)
    away = (uniform * radius * math.sqrt(z.shape[1]) / z.norm(dim=1))[:, None] * z
    found: Tensor = pivot.double() + away.reshape(draws.shape)
    return found.to(draws)
