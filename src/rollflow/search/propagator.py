"""Particles, and what moves and evaluates them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollflow import requests
from rollflow.dynamics.guidance import Guidance
from rollflow.dynamics.lookahead import Tweedie, integrate
from rollflow.errors import RollflowError
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Slope
from rollflow.sampler import Dynamics


class Particles(NamedTuple):
    """States evaluated at one time of the sampler's interpolant; fields have one row a particle.

    Args:
        x: (B, ...) states of the sampler's interpolant.
        u: (B, ...) the model's velocities there, in the model's interpolant.
        clean: (B, ...) clean samples that the look-ahead promises.
        reward: (B,) float64 rewards of ``clean``, -inf for one that must not be chosen; NaN where the search did not
            ask.
        guidance_shift: (B, ...) what guidance adds to the children; None where it was not asked or there is none.
    """

    x: Tensor
    u: Tensor
    clean: Tensor
    reward: Tensor
    guidance_shift: Tensor | None = None

    def rows(self, index: Tensor | slice) -> Particles:
        """The particles at ``index``."""
        return Particles(*(None if field is None else field[index] for field in self))  # type: ignore[arg-type]

    @property
    def best_row(self) -> int:
        """Row of the highest reward, the first of equals."""
        return int(self.reward.argmax())

    def best(self) -> Particles:
        """The one particle of the highest reward, the first of equals."""
        return self.rows(slice(self.best_row, self.best_row + 1))


class Finished(NamedTuple):
    """What a population returns: its best sample and that sample's reward.

    Args:
        x0: (...) one clean sample in the model's space.
        reward: Its reward; -inf if there is no sample that may be chosen.
        noise_level: 0 for a finished sample, else the linear noise level at which the estimate was made.
        diagnostics: Figures of the search's own by name, such as ``log_z`` of SMC; None where it has none.
        row: Row of the sample among the particles that the population saved last (``Progress.particles``). None lets
            the engine take the row of the highest reward.
    """

    x0: Tensor
    reward: float
    noise_level: float
    diagnostics: dict[str, Any] | None = None
    row: int | None = None


@dataclass(frozen=True)
class Propagator:
    """One population's hands: everything that a search does to particles, as requests.

    Args:
        dynamics: How particles move.
        noise: The population's own draws.
        nfe: Its share of the job's budget.
        origin: (...) the model's ``origin``, which the first states are noised from.
    """

    dynamics: Dynamics
    noise: Noise
    nfe: int
    origin: Tensor | None = None

    def time(self, step: int) -> Tensor:
        """Evaluation time number ``step``, a float64 scalar."""
        return self.dynamics.times[step]

    def _velocity(self, x: Tensor, s: Tensor) -> Asking[Tensor]:
        """Velocity in the sampler's interpolant, from the model's in its own."""
        conversion = self.dynamics.conversion
        u = yield from requests.velocity(conversion.to_source(x, s), conversion.time(s))
        return conversion.velocity(u, x, s)

    def evaluate(self, x: Tensor, s: Tensor, *, score: bool = True, guided: bool = False) -> Asking[Particles]:
        """Evaluate states at time s (): if ``score``, ``evaluate_nfe`` NFE and one reward call a row, else 1 NFE.

        Where they are not scored, ``clean`` is the posterior mean, whatever the look-ahead.

        With guidance and ``guided``, the evaluation is the one differentiated, so that the particles can be parents
        without a further NFE; a row takes a backward pass, and a decode and a reward call unless its posterior mean is
        what is scored.
        """
        conversion, guidance = self.dynamics.conversion, self.dynamics.sampler.guidance
        x_model, t = conversion.to_source(x, s), conversion.time(s)
        lookahead, source = self.dynamics.sampler.lookahead if score else Tweedie(), self.dynamics.source
        if guided and guidance is not None:
            slope = yield from requests.grad(x_model, t, self.dynamics.level(s))
            u, shift = slope.velocity, self._guidance_shift(guidance, slope, s)
            if isinstance(lookahead, Tweedie):
                return Particles(x, u, slope.clean, slope.reward, shift)
        else:
            u, shift = (yield from requests.velocity(x_model, t)), None
        clean = _shaped(f"look-ahead {lookahead}", (yield from lookahead.clean(source, x_model, u, t)), x)
        if score:
            reward = yield from requests.reward(clean, self.dynamics.level(s))
        else:
            reward = torch.full((len(x),), torch.nan, dtype=torch.float64)
        return Particles(x, u, clean, reward, shift)

    def _guidance_shift(self, guidance: Guidance, slope: Slope, s: Tensor) -> Tensor:
        gradient = self.dynamics.conversion.to_source(slope.gradient, s)  # the chain rule: x_model = x / c
        return _shaped(f"guidance {guidance}", guidance.shift(gradient.clone(), slope.reward.clone()), gradient)

    def guided(self, particles: Particles, step: int) -> Asking[Particles]:
        """Parents at time number ``step`` that know where their children lean: ``guidance_nfe`` NFE a row.

        They are returned as they came where there is no guidance, where they know already, and at the last time.
        """
        guidance = self.dynamics.sampler.guidance
        if guidance is None or particles.guidance_shift is not None or step == self.dynamics.transitions:
            return particles
        conversion, s = self.dynamics.conversion, self.time(step)
        x, t = conversion.to_source(particles.x, s), conversion.time(s)
        slope = yield from requests.grad(x, t, self.dynamics.level(s))
        return particles._replace(guidance_shift=self._guidance_shift(guidance, slope, s))

    def start(
        self, rows: Sequence[int], draws: Sequence[int], *, score: bool = True, guided: bool = False
    ) -> Asking[Particles]:
        """States at the first time, evaluated, of one noise for each (row, draw): the noises themselves at s = 1."""
        guided, s, x = guided and self.dynamics.transitions > 0, self.time(0), self.noise.normals(0, rows, draws)
        if self.origin is not None:
            path = self.dynamics.sampler.interpolant
            x = path.alpha(s).to(x) * self.origin.to(x) + path.sigma(s).to(x) * x
        return (yield from self.evaluate(x, s, score=score, guided=guided))

    def move(self, parents: Particles, t: Tensor, s: Tensor, noise: Tensor | None) -> Asking[Tensor]:
        """One child of each parent, from time t () to s (), not evaluated: the kernel's ``extra_nfe`` NFE a row."""
        sampler = self.dynamics.sampler
        v = self.dynamics.conversion.velocity(parents.u, parents.x, t)
        x = yield from sampler.kernel.step(sampler.interpolant, parents.x, v, t, s, noise, self._velocity)
        x = _shaped(f"kernel {sampler.kernel}", x, parents.x)
        return x if parents.guidance_shift is None else x + parents.guidance_shift

    def advance(
        self,
        parents: Particles,
        step: int,
        rows: Sequence[int],
        draws: Sequence[int],
        *,
        score: bool = True,
        guided: bool = False,
    ) -> Asking[Particles]:
        """One child of each parent (B of them) at time number ``step``, evaluated.

        A row costs ``child_nfe`` NFE where it is scored, else ``propagate_nfe``.
        """
        t, s = self.time(step - 1), self.time(step)
        noise = self.noise.normals(step, rows, draws) if self.dynamics.sampler.kernel.stochastic else None
        x = yield from self.move(parents, t, s, noise)
        guided = guided and step < self.dynamics.transitions
        return (yield from self.evaluate(x, s, score=score, guided=guided))

    def denoise(self, particles: Particles) -> Asking[Particles]:
        """Finish particles of the last evaluation time, ``clean`` and ``reward``: ``finish_nfe`` NFE a row.

        Where finishing is free the clean estimates are what is returned, and their rewards are known already.
        """
        if self.dynamics.finishing_steps > 1:
            conversion, s = self.dynamics.conversion, self.time(self.dynamics.transitions)
            x, t = conversion.to_source(particles.x, s), conversion.time(s)
            x0 = yield from integrate(self.dynamics.source, x, particles.u, t, self.dynamics.finishing_steps)
            particles = particles._replace(clean=x0, reward=(yield from requests.reward(x0, 0.0)))
        return particles

    def returned(
        self, particles: Particles, row: int | None = None, diagnostics: dict[str, Any] | None = None
    ) -> Finished:
        """What a population returns after ``denoise``: the particle at ``row``, by default the best."""
        row = particles.best_row if row is None else row
        level = 0.0 if self.dynamics.finished else self.dynamics.last_noise_level
        return Finished(particles.clean[row], float(particles.reward[row]), level, diagnostics, row)

    def finish(self, particles: Particles) -> Asking[Finished]:
        """``denoise`` particles and return the best."""
        return self.returned((yield from self.denoise(particles)))


def _shaped(who: str, given: Any, like: Tensor) -> Tensor:
    """What a kernel, a look-ahead or guidance gave, if it has the shape that it must have."""
    if not isinstance(given, Tensor) or given.shape != like.shape:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise RollflowError(f"{who} gave {shape}; expected shape {tuple(like.shape)}")
    return given
