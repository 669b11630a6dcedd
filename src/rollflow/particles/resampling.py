"""Resampling: weighted particles become equally weighted ones, each kept N w times on average."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rollflow.checks import Settings
from rollflow.registry import Registry


class Resampling(Settings, ABC):
    """An unbiased draw of ancestors: particle i has count * w_i offspring on average, and none if w_i = 0.

    It draws no random numbers itself: the uniforms that it needs are handed to it.

    Attributes:
        name: Name on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def draws(self, particles: int, count: int) -> int:
        """Return the number of uniforms that it needs to draw ``count`` ancestors from ``particles`` particles."""

    @abstractmethod
    def select(
        self, weights: Float64[Tensor, " N"], uniforms: Float64[Tensor, " U"], count: int
    ) -> Int64[Tensor, " {count}"]:
        """Draw ancestors as ``__call__`` does, from weights that are all > 0 and enough uniforms."""

    def __call__(
        self, weights: Float64[Tensor, " N"], uniforms: Float64[Tensor, " U"], count: int
    ) -> Int64[Tensor, " {count}"]:
        """Draw ancestors.

        Args:
            weights: (N,) float64 weights >= 0 that sum to 1.
            uniforms: (draws(N, count),) float64 uniform numbers in [0, 1).
            count: Number of ancestors to draw, >= 1.

        Returns:
            (count,) int64 indices of particles.

        Raises:
            ValueError: If the weights are not normalised, or the number of uniforms is wrong.
        """
        if not ((weights >= 0).all() and abs(float(weights.sum()) - 1) < 1e-9):
            raise ValueError(f"expected weights >= 0 that sum to 1; got {weights.tolist()}")
        if len(uniforms) != self.draws(len(weights), count):
            raise ValueError(f"{self.name} needs {self.draws(len(weights), count)} uniforms, not {len(uniforms)}")
        alive = weights.nonzero()[:, 0]
        return alive[self.select(weights[alive], uniforms, count)]


def _inverse(weights: Float64[Tensor, " N"], points: Float64[Tensor, " P"]) -> Int64[Tensor, " P"]:
    """Return the indices at which the cumulative weights, scaled to end at 1, first exceed points in [0, 1)."""
    cumulated = weights.cumsum(0)
    # A point just below 1 can still be rounded up to the end of the scale.
    return torch.searchsorted(cumulated / cumulated[-1], points, right=True).clamp(max=len(weights) - 1)


@dataclass(frozen=True)
class Multinomial(Resampling):
    """Independent draws from the weights: A_n = F^-1(u_n). The largest variance (Gordon, Salmond & Smith 1993)."""

    name = "multinomial"

    def draws(self, particles: int, count: int) -> int:
        return count

    def select(
        self, weights: Float64[Tensor, " N"], uniforms: Float64[Tensor, " U"], count: int
    ) -> Int64[Tensor, " {count}"]:
        return _inverse(weights, uniforms[:count])


@dataclass(frozen=True)
class Stratified(Resampling):
    """One draw in each stratum: A_n = F^-1((n + u_n) / count) (Kitagawa 1996)."""

    name = "stratified"

    def draws(self, particles: int, count: int) -> int:
        return count

    def select(
        self, weights: Float64[Tensor, " N"], uniforms: Float64[Tensor, " U"], count: int
    ) -> Int64[Tensor, " {count}"]:
        return _inverse(weights, (torch.arange(count) + uniforms) / count)


@dataclass(frozen=True)
class Systematic(Stratified):
    """One uniform for all strata: A_n = F^-1((n + u) / count) (Carpenter, Clifford & Fearnhead 1999).

    Every particle is kept floor or ceil of count * w times; equal weights change nothing.
    """

    name = "systematic"

    def draws(self, particles: int, count: int) -> int:
        return 1


@dataclass(frozen=True)
class Residual(Resampling):
    """floor(count * w) copies of each, and the rest by independent draws from the fractions (Liu & Chen 1998)."""

    name = "residual"

    def draws(self, particles: int, count: int) -> int:
        return count

    def select(
        self, weights: Float64[Tensor, " N"], uniforms: Float64[Tensor, " U"], count: int
    ) -> Int64[Tensor, " {count}"]:
        expected = count * weights
        copies = (expected + 1e-9).floor()  # a whole number that rounding left just below itself
        certain = torch.arange(len(weights)).repeat_interleave(copies.long())
        missing = count - len(certain)
        if missing == 0:
            return certain
        return torch.cat([certain, _inverse((expected - copies).clamp(min=0), uniforms[:missing])])


@dataclass(frozen=True)
class SSP(Resampling):
    """Srinivasan sampling process (Gerber, Chopin & Whiteley 2019, arXiv 1708.02230).

    floor(count * w) copies of each; the fractions p are settled in pairs (i, j) until one of the two is whole::

        p_i + p_j < 1:    one gets both with probability p_i : p_j, the other nothing
        otherwise:        one gets a copy with probability 1 - p_j : 1 - p_i, the other keeps p_i + p_j - 1

    The other one is paired with the next. Offspring numbers are floor or ceil of count * w, as in systematic
    resampling, and negatively associated, so that the scheme, unlike that one, is consistent in every order of the
    particles.
    """

    name = "ssp"

    def draws(self, particles: int, count: int) -> int:
        return particles - 1

    def select(
        self, weights: Float64[Tensor, " N"], uniforms: Float64[Tensor, " U"], count: int
    ) -> Int64[Tensor, " {count}"]:
        copies = (count * weights).floor()
        offspring = copies.long().tolist()
        (p_i, *fractions), i = (count * weights - copies).tolist(), 0
        for j, (p_j, u) in enumerate(zip(fractions, uniforms.tolist(), strict=False), 1):
            both = p_i + p_j
            if both < 1:
                p_i, i = both, i if u * both < p_i else j
            else:
                whole, i = (i, j) if u * (2 - both) < 1 - p_j else (j, i)
                offspring[whole] += 1
                p_i = both - 1
        offspring[i] += count - sum(offspring)  # p_i is 0 or 1 by now, up to rounding
        return torch.arange(len(weights)).repeat_interleave(torch.tensor(offspring))


RESAMPLING: Registry[Resampling] = Registry(
    "resampling scheme",
    Resampling,
    {scheme.name: scheme for scheme in (Multinomial, Stratified, Systematic, Residual, SSP)},
)
"""Every scheme, by its name on the command line."""
