"""Particles and the states of a population, and the propagator that moves and evaluates particles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from rollflow import requests
from rollflow.dynamics.guidance import Guidance
from rollflow.dynamics.lookahead import Tweedie, integrate
from rollflow.dynamics.shapes import States
from rollflow.errors import RollflowError, former_names
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Slope
from rollflow.sampler import Dynamics
from rollflow.search.cost import Account


class Particles(NamedTuple):
    """States evaluated at one time of the sampler's interpolant; every field has one row per particle.

    Args:
        x: (B, ...) states along the sampler's interpolant.
        u: (B, ...) the model's velocities there, in the model's interpolant.
        clean: (B, ...) clean samples that the look-ahead predicts.
        reward: (B,) float64 rewards of ``clean``: -inf for a sample that must not be chosen, NaN where the search did
            not ask for a reward.
        guidance_shift: (B, ...) displacement that guidance adds to the children; None without guidance, or before it
            was evaluated.
    """

    x: States
    u: States
    clean: States
    reward: Float64[Tensor, " B"]
    guidance_shift: States | None = None

    def rows(self, index: Int64[Tensor, " N"] | slice) -> Particles:
        """Return the particles at ``index``."""
        return Particles(*(None if field is None else field[index] for field in self))  # type: ignore[arg-type]

    def followed_by(self, others: Particles) -> Particles:
        """Return these particles and, after them, others."""
        fields = zip(self, others, strict=True)
        return Particles(*(None if a is None or b is None else torch.cat([a, b]) for a, b in fields))  # type: ignore[arg-type]

    @property
    def best_row(self) -> int:
        """Row of the highest reward, the first of equals."""
        return int(self.reward.argmax())

    def best(self) -> Particles:
        """Return the one particle with the highest reward, the first of equals."""
        return self.rows(slice(self.best_row, self.best_row + 1))


Particles.__getattr__ = former_names("Particles", lean="guidance_shift", shift="guidance_shift")  # type: ignore[attr-defined]


class Finished(NamedTuple):
    """What a population returns: its best sample and that sample's reward.

    Args:
        x0: (...) one clean sample in the model's space.
        reward: Reward of the sample; -inf if no sample may be chosen.
        noise_level: 0 for a finished sample, else the linear noise level at which the estimate was made.
        diagnostics: Figures that the search reports, by name, such as ``log_z`` of SMC; None if it reports none.
        row: Row of the sample among the particles that the population saved last (``Progress.particles``); None lets
            the engine take the row of the highest reward.
    """

    x0: Float[Tensor, "..."]
    reward: float
    noise_level: float
    diagnostics: dict[str, Any] | None = None
    row: int | None = None


class BestSeen:
    """Keeps the best clean estimate that one population has scored, if the sampler returns it.

    Args:
        wanted: Whether the sampler returns it; otherwise nothing is kept.
        sample: Best estimate so far.
    """

    def __init__(self, wanted: bool, sample: Finished | None = None) -> None:
        self._wanted, self.sample = wanted, sample

    def add(self, clean: States, reward: Float64[Tensor, " B"], noise_level: float) -> None:
        """Compare estimates made at a noise level, with their rewards, to the best so far; the first of equals stays.

        Args:
            clean: (B, ...) clean estimates.
            reward: (B,) rewards of the estimates.
            noise_level: Linear noise level of the states that they were made from.
        """
        row = int(reward.argmax())
        if self._wanted and float(reward[row]) > (-math.inf if self.sample is None else self.sample.reward):
            self.sample = Finished(clean[row].clone(), float(reward[row]), noise_level)


@dataclass(frozen=True)
class Progress:
    """State of a population after a step: all that is needed to resume it there.

    Args:
        step: Index of the evaluation time that was reached.
        particles: Particles to continue from.
        nfe_left: NFE left of the population's share.
        nfe_spent: NFE spent on this step alone.
        extra: Further state of the search.
        noise_level: Linear noise level of the particles, if the search's steps are not those of the sampler's grid.
        ancestors: (B,) int64 row of each particle's parent among the previous step's particles; None if every particle
            has its own row.
        best: Best clean estimate so far, if the sampler returns it (``Sampler.best_seen``); otherwise None.
    """

    step: int
    particles: Particles
    nfe_left: int
    nfe_spent: int
    extra: Any = None
    noise_level: float | None = None
    ancestors: Tensor | None = None
    best: Finished | None = None

    def level(self, dynamics: Dynamics) -> float:
        """Return the linear noise level of the particles."""
        return dynamics.noise_level(self.step) if self.noise_level is None else self.noise_level


@dataclass(frozen=True)
class Propagator:
    """Moves and evaluates the particles of one population, as requests, and keeps the account of what they cost.

    Args:
        dynamics: How particles move.
        noise: The population's own draws.
        nfe: The population's share of the job's budget.
        origin: (...) the model's ``origin``, which is noised to the first states; None starts from pure noise.
        account: What the population has requested so far; None opens a new account. Copies of the propagator
            (``dataclasses.replace``), with other noise or dynamics, share it.
        seen: Best estimate so far, if the sampler returns it; None begins without one. Copies share it.
    """

    dynamics: Dynamics
    noise: Noise
    nfe: int
    origin: Tensor | None = None
    account: Account = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # made below
    seen: BestSeen = field(default=None, kw_only=True, repr=False, compare=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.account is None:
            object.__setattr__(self, "account", Account(self.dynamics, self.nfe))
        if self.seen is None:
            object.__setattr__(self, "seen", BestSeen(self.dynamics.sampler.best_seen))

    @property
    def _prices(self) -> Account:
        return self.account.along(self.dynamics)

    def begin(self, resume: Progress | None, times: int | None = None) -> tuple[range, Particles]:
        """Open the account of a population.

        Args:
            resume: State to continue from; None begins at the start.
            times: Number of steps that the population saves; None is one for each evaluation time.

        Returns:
            The steps still to take, and the particles to take them with: none before the first.
        """
        times = self.dynamics.sampler.steps if times is None else times
        self.seen.sample = None if resume is None else resume.best
        if resume is None:
            self.account.open(self.nfe)
            nothing = torch.empty(0, *self.noise.shape, dtype=self.noise.dtype)
            return range(times), Particles(nothing, nothing, nothing, torch.empty(0, dtype=torch.float64))
        self.account.open(resume.nfe_left)
        return range(resume.step + 1, times), resume.particles

    def save(
        self,
        step: int,
        particles: Particles,
        extra: Any = None,
        *,
        noise_level: float | None = None,
        ancestors: Int64[Tensor, " B"] | None = None,
    ) -> Asking[None]:
        """Save the population's state after a step, with the NFE that the step has cost; arguments as ``Progress``."""
        left, spent = self.account.settle()
        best = self.seen.sample
        yield from requests.save(Progress(step, particles, left, spent, extra, noise_level, ancestors, best))

    def time(self, step: int) -> Float64[Tensor, ""]:
        """Return evaluation time number ``step``."""
        return self.dynamics.times[step]

    def _velocity(self, x: States, s: Tensor) -> Asking[States]:
        """Velocity in the sampler's interpolant, from the model's in its own."""
        conversion = self.dynamics.conversion
        u = yield from requests.velocity(conversion.to_source(x, s), conversion.time(s))
        return conversion.velocity(u, x, s)

    def evaluate(
        self, x: States, s: Float64[Tensor, ""], *, score: bool = True, guided: bool = False
    ) -> Asking[Particles]:
        """Evaluate states at one time.

        Args:
            x: (B, ...) states along the sampler's interpolant.
            s: Time ().
            score: Whether clean estimates are scored, for ``evaluate_nfe`` NFE and one reward call a row; otherwise a
                row costs 1 NFE, and ``clean`` is the posterior mean for every look-ahead.
            guided: Whether guidance, if there is any, differentiates this very evaluation, so that the particles can be
                parents at no further NFE. A row then takes a backward pass, and a decode and a reward call unless its
                posterior mean is what is scored.
        """
        self._prices.add_evaluations(len(x), score=score, guided=guided)
        conversion, guidance = self.dynamics.conversion, self.dynamics.sampler.guidance
        x_model, t = conversion.to_source(x, s), conversion.time(s)
        lookahead, source = self.dynamics.sampler.lookahead if score else Tweedie(), self.dynamics.source
        if guided and guidance is not None:
            slope = yield from requests.grad(x_model, t, self.dynamics.level(s))
            u, shift = slope.velocity, self._guidance_shift(guidance, slope, s)
            if isinstance(lookahead, Tweedie):
                self.seen.add(slope.clean, slope.reward, self.dynamics.level(s))
                return Particles(x, u, slope.clean, slope.reward, shift)
        else:
            u, shift = (yield from requests.velocity(x_model, t)), None
        clean = _shaped(f"look-ahead {lookahead}", (yield from lookahead.clean(source, x_model, u, t)), x)
        if score:
            reward = yield from requests.reward(clean, self.dynamics.level(s))
            self.seen.add(clean, reward, self.dynamics.level(s))
        else:
            reward = torch.full((len(x),), torch.nan, dtype=torch.float64)
        return Particles(x, u, clean, reward, shift)

    def _guidance_shift(self, guidance: Guidance, slope: Slope, s: Tensor) -> States:
        gradient = self.dynamics.conversion.to_source(slope.gradient, s)  # the chain rule: x_model = x / c
        return _shaped(f"guidance {guidance}", guidance.shift(gradient.clone(), slope.reward.clone()), gradient)

    def guided(self, particles: Particles, step: int) -> Asking[Particles]:
        """Evaluate the guidance shift of parents at time number ``step``: ``guidance_nfe`` NFE a row.

        The particles are returned unchanged without guidance, if they have their shift already, and at the last time.
        """
        known = self.dynamics.sampler.guidance is None or particles.guidance_shift is not None
        if known or step == self.dynamics.transitions:
            return particles
        return (yield from self._guide(particles, step))

    def _guide(self, particles: Particles, step: int) -> Asking[Particles]:
        self._prices.add_guidance(len(particles.x))
        conversion, s, guidance = self.dynamics.conversion, self.time(step), self.dynamics.sampler.guidance
        assert guidance is not None
        x, t = conversion.to_source(particles.x, s), conversion.time(s)
        slope = yield from requests.grad(x, t, self.dynamics.level(s))
        return particles._replace(guidance_shift=self._guidance_shift(guidance, slope, s))

    def start(
        self, rows: Sequence[int], draws: Sequence[int], *, score: bool = True, guided: bool = False
    ) -> Asking[Particles]:
        """Draw and evaluate states at the first time, one for each noise label (row, draw)."""
        return (yield from self.start_from(self.noise.normals(0, rows, draws), score=score, guided=guided))

    def start_from(self, noise: States, *, score: bool = True, guided: bool = False) -> Asking[Particles]:
        """Evaluate states at the first time, one for each noise."""
        guided, s, x = guided and self.dynamics.transitions > 0, self.time(0), noise
        if self.origin is not None:
            path = self.dynamics.sampler.interpolant
            x = path.alpha(s).to(x) * self.origin.to(x) + path.sigma(s).to(x) * x
        return (yield from self.evaluate(x, s, score=score, guided=guided))

    def move(
        self, parents: Particles, t: Float64[Tensor, ""], s: Float64[Tensor, ""], noise: States | None
    ) -> Asking[States]:
        """Draw one child of each parent, from time t () to s (), unevaluated: the kernel's ``extra_nfe`` NFE a row."""
        self._prices.add_moves(len(parents.x))
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
        """Draw and evaluate one child of each parent at time number ``step``; at time 0, ``start``.

        Args:
            parents: B particles at the time before; ignored at time 0.
            step: Number of the evaluation time.
            rows: Row labels (B) of the noise.
            draws: Draw labels (B) of the noise, distinct among children with the same row label.
            score: As ``evaluate``: a child costs ``child_nfe`` NFE if it is scored, else ``propagate_nfe``.
            guided: As ``evaluate``; ignored at the last time, whose particles have no children.
        """
        noisy = step == 0 or self.dynamics.sampler.kernel.stochastic
        noise = self.noise.normals(step, rows, draws) if noisy else None
        return (yield from self.advance_with(parents, step, noise, score=score, guided=guided))

    def advance_with(
        self, parents: Particles, step: int, noise: States | None, *, score: bool = True, guided: bool = False
    ) -> Asking[Particles]:
        """Draw and evaluate one child of each parent as ``advance`` does, with the noises that are given.

        Args:
            parents: B particles at the time before; ignored at time 0.
            step: Number of the evaluation time.
            noise: (B, ...) standard normal noises; a kernel that is not stochastic ignores them, but not time 0.
            score: As ``evaluate``.
            guided: As ``advance``.
        """
        if step == 0:
            assert noise is not None
            return (yield from self.start_from(noise, score=score, guided=guided))
        t, s = self.time(step - 1), self.time(step)
        x = yield from self.move(parents, t, s, noise if self.dynamics.sampler.kernel.stochastic else None)
        guided = guided and step < self.dynamics.transitions
        return (yield from self.evaluate(x, s, score=score, guided=guided))

    def denoise(self, particles: Particles) -> Asking[Particles]:
        """Replace ``clean`` and ``reward`` by finished samples and their rewards, for ``finish_nfe`` NFE a row.

        The particles must be those of the last evaluation time. If finishing is free, they are returned unchanged.
        """
        self._prices.add_denoising(len(particles.x))
        if self.dynamics.finishing_steps > 1:
            conversion, s = self.dynamics.conversion, self.time(self.dynamics.transitions)
            x, t = conversion.to_source(particles.x, s), conversion.time(s)
            x0 = yield from integrate(self.dynamics.source, x, particles.u, t, self.dynamics.finishing_steps)
            particles = particles._replace(clean=x0, reward=(yield from requests.reward(x0, 0.0)))
        return particles

    def returned(
        self, particles: Particles, row: int | None = None, diagnostics: dict[str, Any] | None = None
    ) -> Finished:
        """Return the particle at ``row``, after ``denoise``, as the result of a population.

        By default that is the best particle, or a better estimate made earlier if the sampler returns those
        (``Sampler.best_seen``).
        """
        best = self.seen.sample if row is None else None
        if best is not None and best.reward > float(particles.reward.max()):
            return best._replace(diagnostics=diagnostics)
        row = particles.best_row if row is None else row
        level = 0.0 if self.dynamics.finished else self.dynamics.last_noise_level
        return Finished(particles.clean[row], float(particles.reward[row]), level, diagnostics, row)

    def finish(self, particles: Particles) -> Asking[Finished]:
        """Denoise particles and return the best of them."""
        return self.returned((yield from self.denoise(particles)))


Propagator.__getattr__ = former_names("Propagator", lean="guided")  # type: ignore[attr-defined]


def _shaped(who: str, value: Any, like: Tensor) -> Tensor:
    """Return what a kernel, a look-ahead or guidance returned, after a check of its shape."""
    if not isinstance(value, Tensor) or value.shape != like.shape:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise RollflowError(f"{who} gave {shape}; expected shape {tuple(like.shape)}")
    return value
