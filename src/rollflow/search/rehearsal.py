"""Rehearsals: a population is run with a propagator that only counts, to find its cost."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import MOST_NFE, instance
from rollflow.dynamics.shapes import States
from rollflow.errors import RollflowError, blamed
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Decode, Grad, Request, Reward, Save, Slope, Velocity, as_request, drive
from rollflow.sampler import Dynamics
from rollflow.search.cost import Account, Cost
from rollflow.search.own_state import drew
from rollflow.search.propagator import Finished, Particles, Progress, Propagator

MOST_IDLE = 10**4
"""The most requests in a row that cost no NFE; no search saves or scores so often between two evaluations."""


class EndlessSearch(RollflowError):
    """A population spends more than it may, or asks and asks without spending, and has not returned."""


class _OutOfBounds(BaseException):
    """A rehearsal must end here, whatever the population catches."""


class _BoundedAccount(Account):
    """An account that ends a rehearsal which would have no end of its own.

    Args:
        dynamics: How particles move.
        most: The most NFE.
    """

    def __init__(self, dynamics: Dynamics, most: int) -> None:
        super().__init__(dynamics)
        self.most, self.idle = most, 0

    def add(self, nfe: int = 0, *, scored: int = 0, decoded: int = 0, differentiated: int = 0) -> None:
        super().add(nfe, scored=scored, decoded=decoded, differentiated=differentiated)
        self.idle = 0 if nfe > 0 else self.idle + 1
        if self.nfe > self.most or self.idle > MOST_IDLE:
            raise _OutOfBounds


@dataclass(frozen=True)
class Rehearsal(Propagator):
    """A propagator that counts what a population requests; states have one element, and every reward is 0.

    Args:
        surplus: Value that ``Search.surplus`` returns to the population.
        method: Name of the search, as in errors.
    """

    surplus: int = 0
    method: str = ""

    def evaluate(self, x: States, s: Tensor, *, score: bool = True, guided: bool = False) -> Asking[Particles]:
        yield from ()
        self._prices.add_evaluations(len(x), score=score, guided=guided)
        shift = x if guided and self.dynamics.sampler.guidance is not None else None
        return Particles(x, x, x, torch.zeros(len(x), dtype=torch.float64), shift)

    def _guide(self, particles: Particles, step: int) -> Asking[Particles]:
        yield from ()
        self._prices.add_guidance(len(particles.x))
        return particles._replace(guidance_shift=particles.x)

    def move(self, parents: Particles, t: Tensor, s: Tensor, noise: States | None) -> Asking[States]:
        yield from ()
        self._prices.add_moves(len(parents.x))
        return parents.x

    def denoise(self, particles: Particles) -> Asking[Particles]:
        yield from ()
        self._prices.add_denoising(len(particles.x))
        return particles

    def answer(self, request: Request) -> Any:
        """Count and answer a request that the population makes by itself."""
        account = self.account
        match as_request(self.method, request):
            case Velocity(x):
                account.add(len(x))
                return torch.zeros_like(x)
            case Reward(x0):
                account.add(scored=len(x0))
                return torch.zeros(len(x0), dtype=torch.float64)
            case Grad(x):
                account.add(len(x), scored=len(x), differentiated=len(x))
                zeros = torch.zeros_like(x)
                return Slope(zeros, zeros, torch.zeros(len(x), dtype=torch.float64), zeros)
            case Decode(x0):
                account.add(decoded=len(x0))
                return x0
            case Save(state):
                instance(f"what {self.method} saves", state, Progress)
        account.add()
        return None


class _NoNoise(Noise):
    """Noise whose draws are all 0 and cost no time."""

    def normal(self, step: int, row: int, draw: int) -> Float64[Tensor, "..."]:
        return torch.zeros(self.shape, dtype=self.dtype)

    def normals(self, step: int, rows: Sequence[int], draws: Sequence[int]) -> Float64[Tensor, "B ..."]:
        return torch.zeros(len(rows), *self.shape, dtype=self.dtype)

    def uniform(self, step: int, count: int) -> Float64[Tensor, " count"]:
        return torch.zeros(count, dtype=torch.float64)


def rehearse(
    population: Callable[[Propagator], Asking[Finished]],
    dynamics: Dynamics,
    surplus: int,
    *,
    nfe: int = 0,
    most: int = MOST_NFE,
    method: str = "",
) -> Cost:
    """Return what a population spends, without a model or a reward.

    Args:
        population: ``Search.population``, from the start.
        dynamics: How particles move.
        surplus: Value that ``Search.surplus`` returns to the population.
        nfe: Share of the budget that the population finds.
        most: NFE after which the population is considered endless.
        method: Name of the search, for errors.

    Raises:
        EndlessSearch: If the population does not return within ``most`` NFE, or asks for nothing that costs any.
        RollflowError: If it raises an exception, or yields or returns what it must not.
    """
    account, who, drawn = _BoundedAccount(dynamics, most), f"method '{method}'", torch.get_rng_state()
    rehearsal = Rehearsal(dynamics, _NoNoise(0, 0, (1,), torch.float64), nfe, None, account, surplus, who)
    with blamed(f"{who} failed in a rehearsal of its cost, in which every reward and propagator.nfe are 0"):
        try:
            asking = instance(f"population of {who}", population(rehearsal), Generator, what="a generator of requests")
            instance(f"what {who} returns", drive(asking, rehearsal.answer), Finished)
        except _OutOfBounds:
            what = (
                f"spent {account.nfe:,} NFE" if account.nfe > most else f"made {MOST_IDLE:,} requests that cost no NFE"
            )
            raise EndlessSearch(
                f"{who} does not end: in a rehearsal of its cost, in which every reward is 0, a population {what} and "
                "had not returned; end it by the budget, or override cost, smallest_nfe and shares"
            ) from None
    if not torch.equal(torch.get_rng_state(), drawn):
        raise drew(method)
    return account.cost
