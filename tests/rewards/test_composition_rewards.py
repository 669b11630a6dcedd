"""The rewards of the compositional toy by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rollflow.errors import BadSetting
from rollflow.rewards.composition import GroupLikelihood, WrongGroups

MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
"""Two modes on a line, between which x = 0 decides."""
SAMPLES = torch.tensor([[[0.9, 0.2], [0.1, 5.0]], [[-0.1, 0.0], [0.2, 0.0]], [[-2.0, 1.0], [-1.0, 0.0]]])


def test_wrong_groups_are_counted() -> None:
    assert WrongGroups(MEANS).score(SAMPLES, ["a"] * 3).tolist() == [0.0, -1.0, -2.0]


def test_the_likelihood_of_two_modes_is_logistic() -> None:
    """|x + e|^2 - |x - e|^2 = 4 x_1, so that the log-probability is -log(1 + exp(-2 x_1 / width^2))."""
    found = GroupLikelihood(MEANS, 0.5).score(SAMPLES, ["a"] * 3)
    by_hand = [sum(-math.log1p(math.exp(-2 * group[0] / 0.25)) for group in sample) for sample in SAMPLES.tolist()]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_the_better_sample_is_higher_and_the_gradient_points_to_the_mode() -> None:
    x = SAMPLES.double().requires_grad_()
    reward = GroupLikelihood(MEANS, 0.5)
    assert reward.differentiable
    score = reward.score(x, ["a"] * 3)
    assert score[0] > score[1] > score[2]
    assert bool((torch.autograd.grad(score.sum(), x)[0][..., 0] > 0).all())


def test_a_width_of_zero_is_refused() -> None:
    with pytest.raises(BadSetting, match="width of group-likelihood"):
        GroupLikelihood(MEANS, 0.0)
