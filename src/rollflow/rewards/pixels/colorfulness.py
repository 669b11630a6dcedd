"""Colourfulness: a differentiable reward with a closed formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import vector_norm

from rollflow.rewards.base import Card, PictureReward


class Colorfulness(PictureReward):
    """The colourfulness of natural pictures, from the spread and the mean of two opponent colours.

        rg = R - G,   yb = (R + G) / 2 - B,   R, G, B in [0, 255]
        M = sqrt(sigma_rg^2 + sigma_yb^2) + 0.3 sqrt(mu_rg^2 + mu_yb^2)

    with means and standard deviations over the picture's pixels. Hasler & Süsstrunk 2003, "Measuring colourfulness in
    natural images", Human Vision and Electronic Imaging VIII, the metric that they recommend: 0 is "not colourful", 33
    "moderately", 59 "quite" and 109 "extremely". Deviation: pixels are not rounded to bytes, so that gradients exist;
    the gradient is 0 where one of the roots is 0, as in a grey picture.

    If all colours (rg, yb) lie within a distance R of grey, M is at most R sqrt(1 + 0.3^2); of pixels in [0, 1], pure
    red is the furthest, with R = 255 sqrt(1 + 1/4), so M never exceeds 297.7.

    It stands in for an aesthetic reward where none can be downloaded. It ignores the prompt, so it takes another reward
    to show over-optimization, that is, how far a search on it departs from the prompt; on scenes, ``judge`` does.
    """

    name = "colorfulness"
    bounds = (0.0, 255 * math.sqrt(1.25 * 1.09))
    description = "colourfulness by Hasler & Süsstrunk; differentiable; 0 is grey, above 100 extreme"
    differentiable = True
    card = Card(
        "0 or more; 0 is grey, above 100 extreme", "nothing", "nothing", "none needed", "Hasler & Süsstrunk 2003"
    )

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        red, green, blue = (255 * pixels.double()).flatten(2).unbind(1)
        opponents = torch.stack([red - green, (red + green) / 2 - blue], 1)
        mean = opponents.mean(2, keepdim=True)
        sigma: Tensor = vector_norm(opponents - mean, dim=(1, 2)) / math.sqrt(opponents.shape[2])
        mu: Tensor = vector_norm(mean, dim=(1, 2))
        return sigma + 0.3 * mu
