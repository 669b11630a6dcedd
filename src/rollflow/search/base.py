"""What every search shares: particles, the walk that moves them, declared costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rollflow import requests
from rollflow.lookahead import integrate
from rollflow.requests import Asking
from rollflow.rng import Noise
from rollflow.sampler import Dynamics


class Particles(NamedTuple):
    """States evaluated at one time of the sampler's interpolant; fields have one row a particle.

    Args:
        x: (B, ...) states of the sampler's interpolant.
        u: (B, ...) the model's velocities there, in the model's interpolant.
        clean: (B, ...) clean samples that the look-ahead promises.
        reward: (B,) float64 rewards of ``clean``; NaN where the search did not ask.
    """

    x: Tensor
    u: Tensor
    clean: Tensor
    reward: Tensor

    def rows(self, index: Tensor | slice) -> Particles:
        """The particles at ``index``."""
        return Particles(*(field[index] for field in self))

    def best(self) -> Particles:
        """The one particle of the highest reward, the first of equals."""
        at = int(self.reward.argmax())
        return self.rows(slice(at, at + 1))


class Finished(NamedTuple):
    """What a population returns: its best sample and that sample's reward.

    Args:
        x0: (...) one clean sample in the model's space.
        reward: Its reward.
        noise_level: 0 for a finished sample, else the linear noise level at which the estimate was made.
    """

    x0: Tensor
    reward: float
    noise_level: float


class Cost(NamedTuple):
    """What a search will spend at most, declared before anything runs; ``exact`` says it will spend just that."""

    nfe: int
    reward_calls: int
    decodes: int
    exact: bool = True


@dataclass(frozen=True)
class Progress:
    """State of a population after a step, which is all that is needed to go on from there.

    Args:
        step: Index of the evaluation time reached.
        particles: What is kept.
        nfe_left: Of the population's share.
        nfe_spent: On this step alone.
        extra: What one search needs beyond this.
    """

    step: int
    particles: Particles
    nfe_left: int
    nfe_spent: int
    extra: Any = None


@dataclass(frozen=True)
class Walk:
    """One population's hands: everything that a search does to particles, as requests.

    Args:
        dynamics: How particles move.
        noise: The population's own draws.
        nfe: Its share of the job's budget.
    """

    dynamics: Dynamics
    noise: Noise
    nfe: int

    def time(self, step: int) -> Tensor:
        """Evaluation time number ``step``, a float64 scalar."""
        return self.dynamics.times[step]

    def _velocity(self, x: Tensor, s: Tensor) -> Asking[Tensor]:
        """Velocity in the sampler's interpolant, from the model's in its own."""
        conversion = self.dynamics.conversion
        u = yield from requests.velocity(conversion.to_source(x, s), conversion.time(s))
        return conversion.velocity(u, x, s)

    def evaluate(self, x: Tensor, step: int, *, score: bool = True) -> Asking[Particles]:
        """Evaluate states at time number ``step``: ``look_nfe`` NFE and, if ``score``, one reward call a row."""
        conversion, s = self.dynamics.conversion, self.time(step)
        x_model, t = conversion.to_source(x, s), conversion.time(s)
        u = yield from requests.velocity(x_model, t)
        clean = yield from self.dynamics.sampler.lookahead.clean(self.dynamics.source, x_model, u, t)
        if score:
            reward = yield from requests.reward(clean, self.dynamics.noise_level(step))
        else:
            reward = torch.full((len(x),), torch.nan, dtype=torch.float64)
        return Particles(x, u, clean, reward)

    def start(self, rows: Sequence[int], draws: Sequence[int], *, score: bool = True) -> Asking[Particles]:
        """Noises at s = 1, evaluated; one for each (row, draw)."""
        return (yield from self.evaluate(self.noise.normals(0, rows, draws), 0, score=score))

    def advance(
        self, parents: Particles, step: int, rows: Sequence[int], draws: Sequence[int], *, score: bool = True
    ) -> Asking[Particles]:
        """One child of each parent (B of them) at time number ``step``, evaluated: ``child_nfe`` NFE a row."""
        sampler, t, s = self.dynamics.sampler, self.time(step - 1), self.time(step)
        v = self.dynamics.conversion.velocity(parents.u, parents.x, t)
        noise = self.noise.normals(step, rows, draws) if sampler.kernel.stochastic else None
        x = yield from sampler.kernel.step(sampler.interpolant, parents.x, v, t, s, noise, self._velocity)
        return (yield from self.evaluate(x, step, score=score))

    def finish(self, particles: Particles) -> Asking[Finished]:
        """Denoise particles of the last evaluation time and return the best: ``finish_nfe`` NFE a row.

        Where finishing is free the clean estimates are what is returned, and their rewards are known already.
        """
        if self.dynamics.finishing_steps > 1:
            conversion, s = self.dynamics.conversion, self.time(self.dynamics.transitions)
            x, t = conversion.to_source(particles.x, s), conversion.time(s)
            x0 = yield from integrate(self.dynamics.source, x, particles.u, t, self.dynamics.finishing_steps)
            particles = particles._replace(clean=x0, reward=(yield from requests.reward(x0, 0.0)))
        best, dynamics = particles.best(), self.dynamics
        return Finished(best.clean[0], float(best.reward), 0.0 if dynamics.finished else dynamics.last_noise_level)


class Search(ABC):
    """A way to spend a budget: frozen dataclass of its settings.

    Attributes:
        name: As on the command line.
    """

    name: ClassVar[str]

    @abstractmethod
    def smallest_nfe(self, dynamics: Dynamics) -> int:
        """The smallest budget that works with these settings."""

    @abstractmethod
    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        """What a budget of ``nfe`` will be spent on. Raises BudgetTooSmall."""

    @abstractmethod
    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """NFE of each population."""

    @abstractmethod
    def population(self, walk: Walk, resume: Progress | None = None) -> Asking[Finished]:
        """Run one population within ``walk.nfe``, from the start or from a saved state."""
