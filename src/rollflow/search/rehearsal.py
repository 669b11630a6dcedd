"""Rehearsals: a population is run with a propagator that only counts, to find its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.dynamics.shapes import States
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Decode, Grad, Request, Reward, Slope, Velocity, drive
from rollflow.sampler import Dynamics
from rollflow.search.cost import Cost
from rollflow.search.propagator import Finished, Particles, Propagator


@dataclass(frozen=True)
class Rehearsal(Propagator):
    """A propagator that counts what a population requests; states have one element, and every reward is 0.

    Args:
        surplus: Value that ``Search.surplus`` returns to the population.
    """

    surplus: int = 0

    def evaluate(self, x: States, s: Tensor, *, score: bool = True, guided: bool = False) -> Asking[Particles]:
        yield from ()
        self.account.add_evaluations(len(x), score=score, guided=guided)
        shift = x if guided and self.dynamics.sampler.guidance is not None else None
        return Particles(x, x, x, torch.zeros(len(x), dtype=torch.float64), shift)

    def _guide(self, particles: Particles, step: int) -> Asking[Particles]:
        yield from ()
        self.account.add_guidance(len(particles.x))
        return particles._replace(guidance_shift=particles.x)

    def move(self, parents: Particles, t: Tensor, s: Tensor, noise: States | None) -> Asking[States]:
        yield from ()
        self.account.add_moves(len(parents.x))
        return parents.x

    def denoise(self, particles: Particles) -> Asking[Particles]:
        yield from ()
        self.account.add_denoising(len(particles.x))
        return particles

    def answer(self, request: Request) -> Any:
        """Count and answer a request that the population makes by itself."""
        match request:
            case Velocity(x):
                self.account.nfe += len(x)
                return torch.zeros_like(x)
            case Reward(x0):
                self.account.add_scores(len(x0))
                return torch.zeros(len(x0), dtype=torch.float64)
            case Grad(x):
                self.account.nfe += len(x)
                self.account.add_scores(len(x))
                self.account.backward_passes += len(x)
                zeros = torch.zeros_like(x)
                return Slope(zeros, zeros, torch.zeros(len(x), dtype=torch.float64), zeros)
            case Decode(x0):
                self.account.decodes += len(x0)
                return x0
        return None


class _NoNoise(Noise):
    """Noise whose draws are all 0 and cost no time."""

    def normal(self, step: int, row: int, draw: int) -> Float64[Tensor, "..."]:
        return torch.zeros(self.shape, dtype=self.dtype)

    def normals(self, step: int, rows: Sequence[int], draws: Sequence[int]) -> Float64[Tensor, "B ..."]:
        return torch.zeros(len(rows), *self.shape, dtype=self.dtype)

    def uniform(self, step: int, count: int) -> Float64[Tensor, " count"]:
        return torch.zeros(count, dtype=torch.float64)


def rehearse(population: Callable[[Propagator], Asking[Finished]], dynamics: Dynamics, surplus: int) -> Cost:
    """Return what a population spends, without a model or a reward.

    Args:
        population: ``Search.population``, from the start.
        dynamics: How particles move.
        surplus: Value that ``Search.surplus`` returns to the population.
    """
    rehearsal = Rehearsal(dynamics, _NoNoise(0, 0, (1,), torch.float64), 0, surplus=surplus)
    drive(population(rehearsal), rehearsal.answer)
    return rehearsal.account.cost
