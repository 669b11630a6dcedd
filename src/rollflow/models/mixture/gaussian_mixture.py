"""Gaussian mixtures with their exact flow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from rollflow.dynamics.interpolants import Interpolant, Linear, as_float64
from rollflow.dynamics.shapes import Time
from rollflow.errors import BadSetting


def _per_row(t: Time, x: Tensor) -> Tensor:
    # Contiguous even where all times are equal: the same arithmetic for every shape of t.
    return as_float64(t).expand(len(x)).contiguous()


class _Components(NamedTuple):
    """Per row and component: log w_k N(x_t), residual x - alpha mu_k, and variance."""

    log_joint: Tensor
    residual: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    r"""A mixture of isotropic Gaussians with its exact flow and exact tilts.

        x0 ~ sum_k w_k N(mu_k, s_k^2 I)
        x_t ~ sum_k w_k N(alpha mu_k, v_k I),    v_k = alpha^2 s_k^2 + sigma^2

    With responsibilities r_k(x) and residuals e_k = x - alpha mu_k, these are averages over r_k of

        score     -e_k / v_k
        denoised   mu_k + alpha s_k^2 e_k / v_k
        velocity   alpha_dot (mu_k + alpha s_k^2 e_k / v_k) + sigma sigma_dot e_k / v_k

    and all are finite on [0, 1]. Computations are in float64, results have the dtype of x, and the result for a row
    does not depend, to the last bit, on the other rows of the batch.

    Args:
        weights: (K,) weights w >= 0, which are normalised here.
        means: (K, d) means mu.
        stds: (K,) standard deviations s > 0.
        interpolant: Path from data to noise.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    interpolant: Interpolant = field(default_factory=Linear)

    def __post_init__(self) -> None:
        w, mu, s = (as_float64(value) for value in (self.weights, self.means, self.stds))
        if w.ndim != 1 or mu.ndim != 2 or not len(w) == len(mu) == len(s) or s.ndim != 1:
            got = tuple(w.shape), tuple(mu.shape), tuple(s.shape)
            raise BadSetting(f"expected weights (K,), means (K, d) and stds (K,); got shapes {got}")
        if not (w >= 0).all() or not w.sum() > 0 or not (s > 0).all():
            raise BadSetting(f"expected weights >= 0, not all 0, and stds > 0; got {w.tolist()} and {s.tolist()}")
        for name, value in (("weights", w / w.sum()), ("means", mu), ("stds", s)):
            object.__setattr__(self, name, value)

    def _components(self, x: Tensor, t: Tensor) -> _Components:
        alpha, sigma = self.interpolant.alpha(t)[:, None], self.interpolant.sigma(t)[:, None]
        residual = x.to(torch.float64)[:, None, :] - alpha[:, :, None] * self.means
        variance = (alpha * self.stds) ** 2 + sigma**2
        distance = residual.square().sum(-1) / variance
        log_density = -0.5 * (distance + self.means.shape[1] * torch.log(2 * math.pi * variance))
        return _Components(self.weights.log() + log_density, residual, variance)

    def _average(self, c: _Components, means: Tensor | float, residuals: Tensor, x: Tensor) -> Tensor:
        """Return the average over responsibilities of means + residuals * residual."""
        values = means + residuals[:, :, None] * c.residual
        return (torch.softmax(c.log_joint, -1)[:, :, None] * values).sum(1).to(x.dtype)

    def log_prob(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """Return log p_t(x), (B,), for x of shape (B, d) and t of shape () or (B,)."""
        return torch.logsumexp(self._components(x, _per_row(t, x)).log_joint, -1)

    def score(self, x: Tensor, t: Time) -> Tensor:
        """Return grad log p_t(x), of the shape (B, d) of x."""
        c = self._components(x, _per_row(t, x))
        return self._average(c, 0.0, -1 / c.variance, x)

    def denoised(self, x: Tensor, t: Time) -> Tensor:
        """Return E[x0 | x_t = x], of the shape (B, d) of x."""
        t = _per_row(t, x)
        c = self._components(x, t)
        alpha = self.interpolant.alpha(t)[:, None]
        return self._average(c, self.means, alpha * self.stds**2 / c.variance, x)

    def velocity(self, x: Tensor, t: Time) -> Tensor:
        """Return E[alpha_dot x0 + sigma_dot eps | x_t = x], of the shape (B, d) of x."""
        t = _per_row(t, x)
        c = self._components(x, t)
        alpha, alpha_dot = self.interpolant.alpha(t)[:, None], self.interpolant.alpha_dot(t)[:, None]
        noise = self.interpolant.sigma_sigma_dot(t)[:, None]
        slope = (alpha_dot * alpha * self.stds**2 + noise) / c.variance
        return self._average(c, alpha_dot[:, :, None] * self.means, slope, x)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n exact samples of x0, (n, d)."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)
        return self.means[k] + self.stds[k, None] * z

    def cdf(self, x: Tensor) -> Tensor:
        """Return P(x0 <= x) elementwise, for d = 1.

        Raises:
            BadSetting: If d is not 1.
        """
        if self.means.shape[1] != 1:
            raise BadSetting(f"cdf is for one-dimensional mixtures; this one has d = {self.means.shape[1]}")
        z = (x[..., None] - self.means[:, 0]) / self.stds
        below: Tensor = torch.special.ndtr(z)
        return (self.weights * below).sum(-1)

    def tilted(self, a: Tensor, temperature: float = 1.0) -> GaussianMixture:
        """Return the mixture proportional to p(x0) exp(a.x0 / temperature), for a of shape (d,).

        With b = a / temperature: means mu_k + s_k^2 b, and weights w_k exp(b.mu_k + s_k^2 |b|^2 / 2).
        """
        means = self.means + self.stds[:, None] ** 2 * (as_float64(a) / temperature)
        weights = torch.softmax(self._log_tilt(a, temperature), 0)
        return GaussianMixture(weights, means, self.stds, self.interpolant)

    def log_normalizer(self, a: Tensor, temperature: float = 1.0) -> Tensor:
        """Return log E[exp(a.x0 / temperature)], the normalising constant of `tilted`, of shape ()."""
        return torch.logsumexp(self._log_tilt(a, temperature), 0)

    def _log_tilt(self, a: Tensor, temperature: float) -> Tensor:
        b = as_float64(a) / temperature
        return self.weights.log() + (self.means * b).sum(-1) + self.stds**2 * b.square().sum() / 2
