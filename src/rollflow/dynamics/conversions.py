"""Conversions between velocity, clean estimate, noise and score, and between interpolants.

The functions share their arguments: `value` and `x` of shape (B, ...), and times `t` of shape () or (B,), or a float.
Coefficients are computed in float64 and only then cast to the dtype of `x`; those at a float are cached, since
samplers visit the same few times again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rollflow.dynamics.interpolants import Interpolant, as_float64
from rollflow.dynamics.shapes import States, Time, Times


def broadcast_like(coefficient: Float[Tensor, "*B"], x: Float[Tensor, "*rest"]) -> Float[Tensor, "..."]:
    """Return a coefficient of shape () or (B,) in the dtype and device of `x`, shaped to multiply it row by row."""
    cast = coefficient.to(x)
    return cast.reshape(cast.shape + (1,) * (x.ndim - cast.ndim)) if cast.ndim else cast


def as_float(t: Times) -> Times | float:
    """Return a time of shape () as a float, for which coefficients are cached, and times of rows unchanged."""
    return float(t) if t.ndim == 0 else t


Pair: TypeAlias = tuple[Float64[Tensor, "*times"] | float, Float64[Tensor, "*times"] | float]
"""Coefficients of `value` and of `x`: floats at a float."""


def _remembered(pair: Callable[[Interpolant, Time], Pair]) -> Callable[[Interpolant, Time], Pair]:
    @lru_cache(maxsize=4096)
    def at(interpolant: Interpolant, t: float) -> Pair:
        a, b = pair(interpolant, t)
        return float(a), float(b)

    @wraps(pair)
    def remembered(interpolant: Interpolant, t: Time) -> Pair:
        return pair(interpolant, t) if isinstance(t, Tensor) else at(interpolant, t)

    return remembered


def _combine(pair: Pair, value: States, x: States) -> States:
    a, b = (broadcast_like(one, x) if isinstance(one, Tensor) else one for one in pair)
    return a * value + b * x


class _Coefficients(NamedTuple):
    """Coefficients of an interpolant at times t, each of the shape of t.

    ``determinant`` is sigma (alpha_dot sigma - alpha sigma_dot): negative, finite, and 0 only where x_t is x0 itself.
    """

    alpha: Float64[Tensor, "*times"]
    alpha_dot: Float64[Tensor, "*times"]
    sigma: Float64[Tensor, "*times"]
    sigma_squared: Float64[Tensor, "*times"]
    sigma_sigma_dot: Float64[Tensor, "*times"]
    determinant: Float64[Tensor, "*times"]


def _coefficients(interpolant: Interpolant, t: Time) -> _Coefficients:
    alpha, sigma = interpolant.alpha(t), interpolant.sigma(t)
    alpha_dot, sigma_sigma_dot, squared = interpolant.alpha_dot(t), interpolant.sigma_sigma_dot(t), sigma**2
    determinant = alpha_dot * squared - alpha * sigma_sigma_dot
    return _Coefficients(alpha, alpha_dot, sigma, squared, sigma_sigma_dot, determinant)


@_remembered
def _denoised_pair(interpolant: Interpolant, t: Time) -> Pair:
    at = _coefficients(interpolant, t)
    end = at.determinant == 0
    a = torch.where(end, 0.0, at.sigma_squared / at.determinant)
    return a, torch.where(end, 1.0, -at.sigma_sigma_dot / at.determinant)


@_remembered
def _noise_pair(interpolant: Interpolant, t: Time) -> Pair:
    at = _coefficients(interpolant, t)
    end = at.determinant == 0
    a = torch.where(end, 0.0, -at.sigma * at.alpha / at.determinant)
    return a, torch.where(end, 0.0, at.sigma * at.alpha_dot / at.determinant)


@_remembered
def _score_pair(interpolant: Interpolant, t: Time) -> Pair:
    at = _coefficients(interpolant, t)
    return at.alpha / at.determinant, -at.alpha_dot / at.determinant


def denoised_from_velocity(interpolant: Interpolant, value: States, x: States, t: Times | float) -> States:
    """Return the clean estimate E[x0 | x_t] = (sigma u - sigma_dot x) / (alpha_dot sigma - alpha sigma_dot).

    Kim et al. 2025, arXiv 2503.19385; linear: x - t u. Finite at both ends: at t = 0 it is x.
    """
    return _combine(_denoised_pair(interpolant, t), value, x)


def noise_from_velocity(interpolant: Interpolant, value: States, x: States, t: Times | float) -> States:
    """Return the noise estimate E[eps | x_t] = (alpha_dot x - alpha u) / (alpha_dot sigma - alpha sigma_dot).

    Linear: x + (1 - t) u. Finite at both ends. At t = 0 the state contains no noise and a polynomial velocity, which
    vanishes there, does not determine it; where the determinant is 0, the estimate is the mean of the noise, 0.
    """
    return _combine(_noise_pair(interpolant, t), value, x)


def score_from_velocity(interpolant: Interpolant, value: States, x: States, t: Times | float) -> States:
    """Return the score grad log p_t(x) = (alpha u - alpha_dot x) / (sigma (alpha_dot sigma - alpha sigma_dot)).

    Kim et al. 2025, arXiv 2503.19385; linear: -((1 - t) u + x) / t. Finite at t = 1, and at t = 0 for `VP` only: other
    velocities do not determine the score there.
    """
    return _combine(_score_pair(interpolant, t), value, x)


def velocity_from_denoised(interpolant: Interpolant, value: States, x: States, t: Times | float) -> States:
    """Return the velocity u = alpha_dot x0 + sigma_dot (x - alpha x0) / sigma of a clean estimate, for t > 0."""
    at = _coefficients(interpolant, t)
    return _combine((at.determinant / at.sigma_squared, interpolant.sigma_dot(t) / at.sigma), value, x)


def velocity_from_noise(interpolant: Interpolant, value: States, x: States, t: Times | float) -> States:
    """Return the velocity u = alpha_dot (x - sigma eps) / alpha + sigma_dot eps of a noise estimate.

    Finite where alpha > 0 and sigma_dot is finite.
    """
    alpha, ratio = interpolant.alpha(t), interpolant.alpha_dot(t) / interpolant.alpha(t)
    a = interpolant.sigma_dot(t) - ratio * interpolant.sigma(t)
    return _combine((a, torch.where(alpha == 0, torch.nan, ratio)), value, x)


def velocity_from_score(interpolant: Interpolant, value: States, x: States, t: Times | float) -> States:
    """Return the velocity u = (alpha_dot x + (alpha_dot sigma^2 - alpha sigma sigma_dot) score) / alpha of a score.

    Finite where alpha > 0, t = 0 included.
    """
    at = _coefficients(interpolant, t)
    return _combine((at.determinant / at.alpha, at.alpha_dot / at.alpha), value, x)


@dataclass(frozen=True)
class Conversion:
    r"""Run a model of one interpolant along another (Kim et al., 2025, arXiv 2503.19385).

    With bars for the target, the same noise level is reached at

        log_snr(t_s) = log_snr_bar(s),    x_bar_s = c_s x_{t_s},    c_s = sigma_bar_s / sigma_{t_s}

    and the paper's velocity  u_bar = (c_dot / c) x_bar + c t_dot u(x_bar / c, t_s)  is computed as

        u_bar = alpha_bar_dot x0 + sigma_bar_dot eps

    from the clean and noise estimates that u contains, which is equal and needs no derivatives of c and t. From an
    interpolant to itself everything is the identity, to the last bit.

    At s = 1, x_bar is drawn from N(0, I). A VP target is not pure noise there: a linear source then starts
    from the state `to_source(x_bar, 1)` at t_1 = sigma_bar / (alpha_bar + sigma_bar), slightly below 1. A VP
    source has nothing noisier than its own t = 1, which then stands for all target times noisier than that.

    Args:
        source: Interpolant that the model was trained on.
        target: Interpolant to sample along.
    """

    source: Interpolant
    target: Interpolant

    def time(self, s: Time) -> Float64[Tensor, "*times"]:
        """Return the source time t_s, exact at both ends."""
        if self.source == self.target:
            return as_float64(s)
        return self.source.time_at_log_snr(self.target.log_snr(s))

    def scale(self, s: Time) -> Float64[Tensor, "*times"]:
        """Return c_s, which equals alpha_bar_s / alpha_{t_s}: from the larger of signal and noise."""
        t = self.time(s)
        signal = self.target.alpha(s) / self.source.alpha(t)
        noise = self.target.sigma(s) / self.source.sigma(t)
        return torch.where(self.target.log_snr(s) > 0, signal, noise)

    def to_source(self, x_bar: States, s: Times | float) -> States:
        """Return the source state x_{t_s} = x_bar / c_s."""
        return x_bar if self.source == self.target else x_bar / broadcast_like(self.scale(s), x_bar)

    def to_target(self, x: States, s: Times | float) -> States:
        """Return the target state x_bar_s = c_s x."""
        return x if self.source == self.target else x * broadcast_like(self.scale(s), x)

    def velocity(self, u: States, x_bar: States, s: Times | float) -> States:
        """Return the target's velocity at (x_bar, s).

        Args:
            u: (B, ...) source velocity at (`to_source(x_bar, s)`, `time(s)`).
            x_bar: (B, ...) target state.
            s: Target time, of shape () or (B,); > 0 for a target whose sigma_dot is infinite at 0 (`VP`).
        """
        if self.source == self.target:
            return u
        x, t = self.to_source(x_bar, s), as_float(self.time(s))
        x0 = denoised_from_velocity(self.source, u, x, t)
        eps = noise_from_velocity(self.source, u, x, t)
        alpha_dot, sigma_dot = self.target.alpha_dot(s), self.target.sigma_dot(s)
        return _combine((alpha_dot, sigma_dot), x0, eps)
