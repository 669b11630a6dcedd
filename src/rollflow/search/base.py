"""The base class of searches: settings, a population, and a cost that follows from the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from rollflow.checks import MOST_NFE, Settings
from rollflow.defaults import DEFAULT_KERNEL, FEW_STEP_INTERPOLANT, MANY_STEP_INTERPOLANT
from rollflow.errors import BudgetTooSmall, RollflowError
from rollflow.requests import Asking
from rollflow.sampler import Dynamics, even_shares
from rollflow.search.cost import Cost, Schedule, largest
from rollflow.search.own_state import changed_settings, own_state, settings_of
from rollflow.search.propagator import Finished, Progress, Propagator
from rollflow.search.purpose import Purpose
from rollflow.search.rehearsal import EndlessSearch, Rehearsal, rehearse


class DefaultDynamics(NamedTuple):
    """Names of an interpolant and a kernel."""

    interpolant: str
    kernel: str


class Search(Settings, ABC):
    """A way to spend a budget: a frozen dataclass of its settings.

    A search defines ``population``. Smallest budget, cost and shares follow from a rehearsal of it, in which nothing is
    evaluated and every reward is 0; a search can override any of them.

    Attributes:
        name: Name on the command line.
        default_interpolant: Name of the interpolant that it samples along unless the user names one; None is the
            library's default for the model.
        default_kernel: Name of the kernel that its paper uses, which a plan takes unless the user names one; None is
            the library's default.
        few_step_interpolant: As ``default_interpolant``, for a step-distilled model; None is ``default_interpolant``.
        few_step_kernel: As ``default_kernel``, for a step-distilled model; None is ``default_kernel``.
        states: Dataclasses and named tuples that its saved states contain in addition to the library's own; a
            checkpoint creates no other class.
        exact: Whether it spends the same amount for all rewards. If not, it must spend the most when all rewards are
            equal, or override ``price``.
    """

    name: ClassVar[str]
    default_interpolant: ClassVar[str | None] = None
    default_kernel: ClassVar[str | None] = None
    few_step_interpolant: ClassVar[str | None] = None
    few_step_kernel: ClassVar[str | None] = None
    states: ClassVar[tuple[type, ...]] = ()
    exact: ClassVar[bool] = True

    @classmethod
    def default_dynamics(cls, *, few_step: bool) -> DefaultDynamics:
        """Return the interpolant and the kernel that a plan takes unless the user names others.

        What the search leaves open is VP for a step-distilled model, as in Kim et al. 2025, arXiv 2503.19385, the
        linear interpolant for any other, and the reverse SDE.

        Args:
            few_step: Whether the model is step-distilled.
        """
        interpolant, kernel = cls.default_interpolant, cls.default_kernel
        if few_step:
            interpolant, kernel = cls.few_step_interpolant or interpolant, cls.few_step_kernel or kernel
        by_model = FEW_STEP_INTERPOLANT if few_step else MANY_STEP_INTERPOLANT
        return DefaultDynamics(interpolant or by_model, kernel or DEFAULT_KERNEL)

    @abstractmethod
    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        """Run one population within ``propagator.nfe``, from the start or from a saved state."""

    def prepared(self, purpose: Purpose) -> Search:
        """Return the search with every choice made that depends on its purpose; by default it has none."""
        return self

    def explained(self, purpose: Purpose) -> tuple[str, ...]:
        """Return lines that say what ``prepared`` chose and why; by default nothing is chosen, so there are none."""
        return ()

    @property
    def default_levels(self) -> tuple[float, ...] | None:
        """Linear noise levels, falling from 1, that it evaluates at unless the user chooses steps or a grid.

        None leaves them to the sampler.
        """
        return None

    @property
    def populations(self) -> int:
        """Number of independent populations, between which the budget is split evenly."""
        return 1

    def surplus(self, propagator: Propagator) -> int:
        """Return how many units the budget of a population buys beyond the smallest population: 0, 1, 2, ...

        The population decides what a unit is, such as a particle or a child a step; its cost must never fall with it.

        Raises:
            BudgetTooSmall: If the budget does not buy the smallest population.
        """
        if isinstance(propagator, Rehearsal):
            return propagator.surplus
        return self._surplus(propagator.dynamics, propagator.nfe)

    def _surplus(self, dynamics: Dynamics, nfe: int) -> int:
        smallest, unending = self._price(dynamics, 0, nfe).nfe, dict[int, EndlessSearch]()
        if nfe < smallest:
            raise BudgetTooSmall(self.name, nfe, smallest)

        def price(surplus: int) -> int:
            try:
                return self._price(dynamics, surplus, nfe).nfe
            except EndlessSearch as error:
                unending[surplus] = error
                return _most(dynamics, nfe)

        bought = largest(price, nfe)
        if bought + 1 in unending:  # what more units would spend is not known, so that this may be far from the most
            raise unending[bought + 1]
        return bought

    def price(self, dynamics: Dynamics, surplus: int) -> Cost:
        """Return the cost of one population with this many units beyond the smallest."""
        return rehearse(self.population, dynamics, surplus, method=self.name)

    @property
    def _rehearsed(self) -> bool:
        return type(self).price is Search.price

    def _price(self, dynamics: Dynamics, surplus: int, budget: int) -> Cost:
        """``price``, but a rehearsal ends when it has spent far more than the budget."""
        return self._rehearse(dynamics, surplus, budget) if self._rehearsed else self.price(dynamics, surplus)

    def _rehearse(self, dynamics: Dynamics, surplus: int, budget: int, nfe: int = 0) -> Cost:
        before = settings_of(self)
        cost = rehearse(self.population, dynamics, surplus, nfe=nfe, most=_most(dynamics, budget), method=self.name)
        changed = changed_settings(self, before)
        if changed:
            raise RollflowError(own_state(self.name, changed))
        return cost

    def smallest_nfe(self, dynamics: Dynamics) -> int:
        """Return the smallest budget that works with these settings."""
        return self.populations * self._price(dynamics, 0, _ANY_BUDGET).nfe

    def doubt(self, dynamics: Dynamics, nfe: int) -> str | None:
        """Return why a budget that works is still too small to be useful, and a better one; None if it is not."""
        return None

    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        """Return what a budget of ``nfe`` will be spent on.

        Raises:
            BudgetTooSmall: If the search cannot run in it.
        """
        smallest = self.populations * self._price(dynamics, 0, nfe).nfe
        if nfe < smallest:
            raise BudgetTooSmall(self.name, nfe, smallest)
        share, larger = divmod(nfe, self.populations)
        cost = self._share_cost(dynamics, share).times(self.populations - larger)
        if larger:
            cost = cost.plus(self._share_cost(dynamics, share + 1).times(larger))
        return cost._replace(exact=self.exact)

    def _share_cost(self, dynamics: Dynamics, share: int) -> Cost:
        surplus = self._surplus(dynamics, share)
        cost = self._price(dynamics, surplus, share)
        if self._rehearsed:
            self._check_size(dynamics, surplus, share, cost)
        return cost

    def _check_size(self, dynamics: Dynamics, surplus: int, share: int, cost: Cost) -> None:
        """Check that a population spends the same where it finds its share in ``propagator.nfe``.

        Raises:
            RollflowError: If it does not, since it would then be given its cost of a rehearsal, where that is 0.
        """
        informed = self._rehearse(dynamics, surplus, share, nfe=share)
        if informed == cost:
            return
        if self._rehearse(dynamics, surplus, share) != cost:
            raise RollflowError(
                f"method '{self.name}' does not spend the same in two rehearsals, in which every reward is 0; draw "
                "only from propagator.noise, and keep no state in the search"
            )
        raise RollflowError(
            f"method '{self.name}' sizes itself by propagator.nfe: where that is {share} it spends {informed.nfe} NFE, "
            f"and where it is 0, as in the rehearsal of its cost, {cost.nfe} NFE; use self.surplus(propagator), the "
            "number of units that the budget buys beyond the smallest population, or override cost, smallest_nfe and "
            "shares"
        )

    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """Return the NFE of each population, the larger ones last.

        Raises:
            BudgetTooSmall: If the search cannot run in ``nfe``.
        """
        cost = self.cost(dynamics, nfe)
        return [cost.nfe] if self.populations == 1 else even_shares(nfe, self.populations)


_ANY_BUDGET = 10**4
"""Budget by which rehearsals are bounded where none is given."""
_FEWEST = 10**5
"""NFE that every rehearsal may spend."""


def _most(dynamics: Dynamics, budget: int) -> int:
    """NFE beyond which a population is taken to have no end, far more than its budget and its steps need."""
    return min(max(100 * (budget + dynamics.sampler.steps), _FEWEST), MOST_NFE)


class ScheduledSearch(Search):
    """A search whose requests are known as soon as its budget is, so that no rehearsal is needed."""

    @abstractmethod
    def schedule(self, dynamics: Dynamics, surplus: int) -> Schedule:
        """Return everything that a population requests, with this many units beyond the smallest."""

    def price(self, dynamics: Dynamics, surplus: int) -> Cost:
        return self.schedule(dynamics, surplus).cost(dynamics)

    def bought(self, propagator: Propagator) -> Schedule:
        """Return the schedule that the budget of a population buys."""
        return self.schedule(propagator.dynamics, self.surplus(propagator))
