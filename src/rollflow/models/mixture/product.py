"""Independent copies of one Gaussian mixture as a flow model: parts that have to come right together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollflow.checks import whole
from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture


class ProductModel(FlowModel):
    """Groups of coordinates that are independent and each follow one Gaussian mixture, in float64.

        x = (x_1, ..., x_G),    x_g ~ mixture,    u_t(x) = (u_t(x_1), ..., u_t(x_G))

    The velocity of a product of laws is that of each law, group by group, so that it is exact. The prompt is ignored.

    Args:
        mixture: Law of every group, in d dimensions.
        groups: Number G of groups; the shape of a state is (G, d).
    """

    name = "product"
    description = "independent copies of a Gaussian mixture with exact velocity, float64"
    dtype = torch.float64

    def __init__(self, mixture: GaussianMixture, groups: int) -> None:
        self.mixture = mixture
        self.shape = (whole("groups of a product", groups, at_least=1), mixture.means.shape[1])
        self.interpolant = mixture.interpolant

    def encode(self, prompt: str) -> None:
        """Return None, since there is one law."""

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        groups = x.reshape(-1, x.shape[-1])
        return self.mixture.velocity(groups, t.repeat_interleave(self.shape[0])).view_as(x)


def simplex(points: int, dimension: int) -> Tensor:
    """Return the vertices (points, dimension) of a regular simplex on the unit sphere, float64.

    Two vertices have the inner product -1 / (points - 1); all lie in the first ``points`` - 1 coordinates.

    Raises:
        BadSetting: Unless 2 <= points <= dimension + 1.
    """
    if not 2 <= points <= dimension + 1:
        raise BadSetting(f"a regular simplex in {dimension} dimensions has 2 to {dimension + 1} vertices; got {points}")
    vertices = torch.zeros(points, dimension, dtype=torch.float64)
    for i in range(points - 1):
        vertices[i, i] = math.sqrt(1 - float(vertices[i].square().sum()))
        vertices[i + 1 :, i] = (-1 / (points - 1) - vertices[i + 1 :] @ vertices[i]) / vertices[i, i]
    return vertices
