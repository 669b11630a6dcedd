"""The reference model: Gaussian mixtures, with every quantity in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel
from rollflow.models.mixture.gaussian_mixture import GaussianMixture


class ToyModel(FlowModel):
    """Gaussian mixtures in float64, of which the prompt names one.

    Args:
        mixtures: Mixtures by prompt, all of one dimension and one interpolant.
    """

    name = "toy"
    description = "Gaussian mixtures with exact velocity and score, float64"
    dtype = torch.float64

    def __init__(self, mixtures: dict[str, GaussianMixture]) -> None:
        self.mixtures = mixtures
        first = next(iter(mixtures.values()))
        self.shape, self.interpolant = (first.means.shape[1],), first.interpolant

    def encode(self, prompt: str) -> str:
        if prompt not in self.mixtures:
            raise BadSetting(f"the toy model has no mixture '{prompt}'; known: {', '.join(self.mixtures)}")
        return prompt

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        v = torch.empty_like(x)
        for prompt in set(conditions):
            rows = torch.tensor([condition == prompt for condition in conditions])
            v[rows] = self.mixtures[prompt].velocity(x[rows], t[rows])
        return v
