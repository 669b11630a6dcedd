"""Products of mixtures against automatic differentiation, sampling and the geometry of a simplex."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.errors import BadSetting
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.product import ProductModel, simplex


def product(interpolant: Interpolant, groups: int = 3) -> ProductModel:
    weights, stds = torch.tensor([0.3, 0.5, 0.2]), torch.tensor([0.2, 0.4, 0.3])
    means = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [0.0, -1.2]])
    return ProductModel(GaussianMixture(weights, means, stds, interpolant), groups)


def states(rows: int, groups: int = 3) -> Tensor:
    return torch.randn(rows, groups, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("interpolant", [Linear(), VP()], ids=str)
def test_the_velocity_is_that_of_the_gradient_of_the_joint_density(interpolant: Interpolant) -> None:
    """v = alpha'/alpha x + (sigma^2 alpha'/alpha - sigma sigma') score, with the score of the joint law by autograd."""
    model, x = product(interpolant), states(6).requires_grad_()
    t = torch.tensor([0.2, 0.9, 0.5, 0.05, 0.7, 0.35], dtype=torch.float64)
    joint = sum(model.mixture.log_prob(x[:, g], t) for g in range(3))
    assert isinstance(joint, Tensor)
    score = torch.autograd.grad(joint.sum(), x)[0]
    alpha, sigma = interpolant.alpha(t), interpolant.sigma(t)
    rate = interpolant.alpha_dot(t) / alpha
    slope = sigma**2 * rate - interpolant.sigma_sigma_dot(t)
    expected = rate[:, None, None] * x.detach() + slope[:, None, None] * score
    torch.testing.assert_close(model.velocity(x.detach(), t, [None] * 6), expected, rtol=1e-9, atol=1e-9)


def test_the_velocity_is_the_mean_of_exact_draws() -> None:
    """Weigh draws of x0 by how likely they lead to x_t: a mean of eps - x0 without any formula of mixtures."""
    model, t, n = product(Linear(), groups=2), 0.6, 400_000
    x = states(1, 2)
    x0 = torch.stack([model.mixture.sample(n, torch.Generator().manual_seed(g)) for g in range(2)], 1)
    eps = (x - (1 - t) * x0) / t
    weights = torch.softmax(-eps.square().sum((1, 2)) / 2, 0)
    values = eps - x0
    mean = (weights[:, None, None] * values).sum(0)
    error = ((weights[:, None, None] * (values - mean)) ** 2).sum(0).sqrt()
    found = model.velocity(x, torch.tensor([t], dtype=torch.float64), [None])[0]
    assert ((found - mean).abs() < 4 * error).all()
    assert float(error.max()) < 0.02


@pytest.mark.parametrize(("points", "dimension"), [(2, 1), (2, 3), (3, 2), (4, 3), (4, 5), (6, 5)])
def test_a_simplex_has_equal_distances_on_the_sphere(points: int, dimension: int) -> None:
    inner = simplex(points, dimension) @ simplex(points, dimension).T
    expected = torch.full((points, points), -1 / (points - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(inner, expected, rtol=0, atol=1e-12)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(BadSetting, match="2 to 4 vertices; got 5"):
        simplex(5, 3)
    with pytest.raises(BadSetting, match="groups of a product"):
        product(Linear(), groups=0)
