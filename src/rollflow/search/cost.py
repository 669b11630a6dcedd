"""Costs of searches: the price of each request, and the total, which is known before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rollflow.dynamics.lookahead import Tweedie
from rollflow.sampler import Dynamics


class Cost(NamedTuple):
    """The most that a search will spend, declared before anything runs.

    Args:
        nfe: Guided velocity evaluations.
        reward_calls: Samples scored.
        decodes: Samples decoded.
        exact: Whether the search will spend exactly this amount for all rewards.
        backward_passes: Samples differentiated through.
    """

    nfe: int
    reward_calls: int
    decodes: int
    exact: bool = True
    backward_passes: int = 0

    def times(self, count: int) -> Cost:
        """The cost of ``count`` populations that each cost this."""
        nfe, reward_calls, decodes, exact, backward_passes = self
        return Cost(count * nfe, count * reward_calls, count * decodes, exact, count * backward_passes)

    def plus(self, other: Cost) -> Cost:
        """The cost of both; exact if both are."""
        return Cost(
            self.nfe + other.nfe,
            self.reward_calls + other.reward_calls,
            self.decodes + other.decodes,
            self.exact and other.exact,
            self.backward_passes + other.backward_passes,
        )


class Account:
    """Counts what one population requests; each method has the price of one of the ``Propagator``'s.

    Args:
        dynamics: How particles move, which decides the prices.
        nfe: The population's share of the budget.
    """

    def __init__(self, dynamics: Dynamics, nfe: int = 0) -> None:
        self.nfe = self.reward_calls = self.decodes = self.backward_passes = 0
        self.open(nfe)
        self._set_prices(dynamics)

    def _set_prices(self, dynamics: Dynamics) -> None:
        self._dynamics = dynamics
        self._evaluate, self._move, self._finish = (
            dynamics.evaluate_nfe,
            dynamics.sampler.kernel.extra_nfe,
            dynamics.finish_nfe,
        )
        self._guided = dynamics.guidance_nfe > 0
        self._mean = isinstance(dynamics.sampler.lookahead, Tweedie)
        self._denoised = dynamics.finishing_steps > 1

    def along(self, dynamics: Dynamics) -> Account:
        """Return the account with the prices of these dynamics from now on, for a propagator that was copied."""
        if dynamics is not self._dynamics:
            self._set_prices(dynamics)
        return self

    def add(self, nfe: int = 0, *, scored: int = 0, decoded: int = 0, differentiated: int = 0) -> None:
        """Count a request.

        Args:
            nfe: Velocity evaluations.
            scored: Samples decoded and scored.
            decoded: Samples only decoded.
            differentiated: Samples differentiated through.
        """
        self.nfe += nfe
        self.reward_calls += scored
        self.decodes += scored + decoded
        self.backward_passes += differentiated

    def add_evaluations(self, rows: int, *, score: bool = True, guided: bool = False) -> None:
        """Count evaluated states; a guided evaluation has scored the posterior mean already."""
        differentiated = rows if guided and self._guided else 0
        scored = rows if score and not (differentiated and self._mean) else 0
        nfe = rows * (self._evaluate if score else 1)
        self.add(nfe, scored=scored + differentiated, differentiated=differentiated)

    def add_guidance(self, rows: int) -> None:
        """Count parents whose guidance shift is evaluated."""
        if self._guided:
            self.add(rows, scored=rows, differentiated=rows)

    def add_moves(self, rows: int) -> None:
        """Count particles moved by the kernel."""
        self.add(rows * self._move)

    def add_denoising(self, rows: int) -> None:
        """Count particles that are finished and scored, if finishing takes more than their clean estimates."""
        if self._denoised:
            self.add(rows * self._finish, scored=rows)

    def add_scores(self, rows: int) -> None:
        """Count decoded and scored samples."""
        self.add(scored=rows)

    def open(self, left: int) -> None:
        """Begin to count from here, with this much of the budget left."""
        self._mark, self._left = self.nfe, left

    @property
    def left(self) -> int:
        """NFE left of the budget now."""
        return self._left - (self.nfe - self._mark)

    def settle(self) -> tuple[int, int]:
        """Return the NFE left of the budget, and the NFE spent since the last call."""
        spent = self.nfe - self._mark
        self.open(self.left)
        return self._left, spent

    @property
    def cost(self) -> Cost:
        """All that was counted."""
        return Cost(self.nfe, self.reward_calls, self.decodes, backward_passes=self.backward_passes)


class Stage(NamedTuple):
    """What a population requests at one evaluation time, or at several that are alike.

    Args:
        rows: Particles to evaluate.
        score: Whether their clean estimates are scored.
        guided: Whether guidance differentiates their evaluation, so that they can be parents at no further NFE.
        parents: Particles whose guidance shift is evaluated beforehand.
        fresh: Whether the particles are newly drawn instead of moved by the kernel, as in every first stage.
        times: Number of evaluation times.
    """

    rows: int
    score: bool = True
    guided: bool = False
    parents: int = 0
    fresh: bool = False
    times: int = 1


class Schedule(NamedTuple):
    """Everything that a population requests.

    Args:
        stages: Stages in order, the first of them with fresh noises.
        finished: Particles denoised to t = 0 at the end.
    """

    stages: list[Stage]
    finished: int = 0

    def cost(self, dynamics: Dynamics) -> Cost:
        """The cost of the population."""
        account = Account(dynamics)
        for i, (rows, score, guided, parents, fresh, times) in enumerate(self.stages):
            account.add_guidance(parents)
            account.add_evaluations(rows * times, score=score, guided=guided)
            if i > 0 and not fresh:
                account.add_moves(rows * times)
        account.add_denoising(self.finished)
        return account.cost


def largest(price: Callable[[int], int], budget: int) -> int:
    """Return the largest whole number whose price is within the budget, for a price that never falls.

    Prices are nearly linear, so secants find it in a few steps; bisection bounds the number of further ones.

    Args:
        price: Function that returns the price of a number; the price of 0 must be within the budget.
        budget: Largest price, and the largest number considered.
    """
    low, high, guess, secants = 0, budget + 1, 1, 8
    first = paid = price(0)
    while high - low > 1:
        asked = price(guess)
        slope, secants = (asked - first) / guess, secants - 1
        if asked <= budget:
            low, paid = guess, asked
        else:
            high = guess
        step = (budget - paid) / slope if slope > 0 and secants > 0 else (high - low) / 2
        guess = min(max(low + int(step), low + 1), high - 1)
    return low
