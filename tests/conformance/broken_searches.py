"""Searches that break one promise each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from rollflow.errors import BudgetTooSmall
from rollflow.requests import Asking, Request, Reward, Save, Velocity, velocity
from rollflow.sampler import Dynamics
from rollflow.search import BestOfN, Cost, Finished, Progress, Propagator, RolloverBudget, Search
from rollflow.testing import SearchSuite
from rollflow.testing.jobs import SAMPLERS

LINEAR = SAMPLERS["linear"]


@dataclass(frozen=True)
class Meddled(BestOfN):
    """Best of N, meddled with; unpublished.

    Cost: as it is.
    """

    name = "meddled"

    def asks(self, request: Request) -> Request | None:
        return request

    def returns(self, finished: Finished) -> Finished:
        return finished

    def walks(self, propagator: Propagator, resume: Progress | None) -> Propagator:
        return propagator

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        asking, reply = super().population(self.walks(propagator, resume), resume), None
        while True:
            try:
                request = self.asks(asking.send(reply))
            except StopIteration as stop:
                return self.returns(stop.value)
            reply = None if request is None else (yield request)


class Nameless(Meddled):
    """Unpublished.

    Cost: none.
    """

    name = ""


class Undocumented(Meddled):
    pass


class Unlucky(Meddled):
    """Returns a sample that must not be chosen, where any must not; unpublished.

    Cost: as it is.
    """

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        asking, reply, spoilt = super().population(propagator, resume), None, False
        while True:
            try:
                request = asking.send(reply)
            except StopIteration as stop:
                finished: Finished = stop.value
                return finished._replace(reward=-torch.inf) if spoilt else finished
            reply = yield request
            spoilt = spoilt or (isinstance(request, Reward) and bool((reply == -torch.inf).any()))


@dataclass(frozen=True)
class UndocumentedData(Meddled):
    more: int = 1


class Priceless(Meddled):
    """Unpublished, and says nothing of its cost."""


class Rootless(Meddled):
    """Cites nothing.

    Cost: none.
    """


class Unkernelled(Meddled):
    """Unpublished.

    Cost: none.
    """

    default_kernel = "popcorn"


@dataclass
class Melting(Search):
    smallest_nfe = BestOfN.smallest_nfe
    cost, shares, population = BestOfN.cost, BestOfN.shares, BestOfN.population


@dataclass(frozen=True)
class Secretive(Meddled):
    secret: int = field(default=1, repr=False)


@dataclass(frozen=True)
class Addressed(Meddled):
    chooser: Any = field(default_factory=object)


class Shy(Meddled):
    def smallest_nfe(self, dynamics: Dynamics) -> int:
        return super().smallest_nfe(dynamics) + 1


class Vague(Meddled):
    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        if nfe < self.smallest_nfe(dynamics):
            raise BudgetTooSmall(self.name, nfe, self.smallest_nfe(dynamics) + 5)
        return super().cost(dynamics, nfe)


class Understated(Meddled):
    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        cost = super().cost(dynamics, nfe)
        return cost._replace(reward_calls=cost.reward_calls - 1, exact=False)


class Overstated(Meddled):
    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        cost = super().cost(dynamics, nfe)
        return cost._replace(decodes=cost.decodes + 1)


class Overspending(Meddled):
    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        return [nfe + self.smallest_nfe(dynamics)]


class Uncounted(Meddled):
    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        x = propagator.noise.normals(0, [0], [0])
        yield from velocity(x, propagator.time(0))
        return (yield from super().population(propagator, resume))


class Careless(Meddled):
    def asks(self, request: Request) -> Request:
        match request:
            case Velocity(x, t):
                return Velocity(x + torch.randn_like(x), t)
        return request


class Stubborn(Meddled):
    def walks(self, propagator: Propagator, resume: Progress | None) -> Propagator:
        return replace(propagator, noise=replace(propagator.noise, seed=0))


class Gossiping(RolloverBudget):
    """The second chain listens to whether the first has finished."""

    done: ClassVar[list[Finished]] = []

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        if propagator.noise.population == 0:
            self.done.clear()
        heard = replace(propagator, noise=replace(propagator.noise, seed=propagator.noise.seed + len(self.done)))
        self.done.append((yield from super().population(heard, resume)))
        return self.done[-1]


class Crowded(Meddled):
    """Looks at how many others there are."""

    live: ClassVar[list[Propagator]] = []

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        self.live.append(propagator)
        jostled = replace(propagator, noise=replace(propagator.noise, seed=propagator.noise.seed + len(self.live)))
        finished = yield from super().population(jostled, resume)
        self.live.remove(propagator)
        return finished


class Forgetful(Meddled):
    def walks(self, propagator: Propagator, resume: Progress | None) -> Propagator:
        return propagator if resume is None else replace(propagator, noise=replace(propagator.noise, seed=0))


class Unsaved(Meddled):
    def asks(self, request: Request) -> Request | None:
        return None if isinstance(request, Save) else request


@dataclass(frozen=True)
class Saving(Meddled):
    """Saves other states than it should."""

    what: str = "nfe_spent"
    value: Any = 0

    def asks(self, request: Request) -> Request:
        return Save(replace(request.state, **{self.what: self.value})) if isinstance(request, Save) else request


class Boastful(Meddled):
    def returns(self, finished: Finished) -> Finished:
        return finished._replace(reward=finished.reward + 1)


class Mistaken(Meddled):
    def returns(self, finished: Finished) -> Finished:
        return finished._replace(x0=finished.x0 + 1e-9)


class Unfinished(Meddled):
    def returns(self, finished: Finished) -> Finished:
        return finished._replace(noise_level=0.5)


class Holding(Meddled):
    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        with torch.no_grad():
            return (yield from super().population(propagator, resume))


of = SearchSuite
CASES: list[tuple[Any, Search, tuple[Any, ...]]] = [
    *((of.test_it_says_what_it_is, kind(), ()) for kind in (Nameless, Undocumented, UndocumentedData)),
    *((of.test_it_says_what_it_is, kind(), ()) for kind in (Priceless, Rootless, Unkernelled)),
    *((of.test_its_settings_are_a_value, kind(), ()) for kind in (Melting, Secretive, Addressed)),
    *((of.test_the_smallest_budget_works_and_one_less_is_refused, kind(), (LINEAR,)) for kind in (Shy, Vague)),
    *((of.test_what_is_declared_is_spent, kind(), (LINEAR,)) for kind in (Understated, Overstated)),
    *((of.test_what_is_declared_is_spent, kind(), (LINEAR,)) for kind in (Overspending, Uncounted)),
    *((of.test_the_seed_decides_everything, kind(), ()) for kind in (Careless, Stubborn)),
    (of.test_the_engine_gives_what_drive_gives, Gossiping(2, 3), (LINEAR,)),
    (of.test_company_does_not_matter, Crowded(), (LINEAR,)),
    *((of.test_it_goes_on_from_every_state_saved, kind(), (LINEAR,)) for kind in (Forgetful, Unsaved)),
    (of.test_it_goes_on_from_every_state_saved, Saving("nfe_spent", 3), (LINEAR,)),
    (of.test_it_goes_on_from_every_state_saved, Saving("nfe_left", 100), (LINEAR,)),
    (of.test_it_goes_on_from_every_state_saved, Saving("nfe_left", 0), (LINEAR,)),
    *((of.test_what_is_returned_is_what_was_judged, kind(), (LINEAR,)) for kind in (Boastful, Mistaken, Unfinished)),
    (of.test_it_goes_on_without_samples_that_must_not_be_chosen, Unlucky(), (LINEAR,)),
    (of.test_nothing_is_held_while_it_waits, Holding(), ()),
]
UNWRITABLE = Saving("extra", {1, 2})
"""What it saves is no tensor, plain value or dataclass, which only a file can tell."""
