"""The interfaces of kernels and of diffusion coefficients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias

from rollflow.checks import Settings
from rollflow.dynamics.conversions import broadcast_like
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.shapes import States, Times

VelocityFn: TypeAlias = Callable[[States, Times], Generator[Any, Any, States]]
"""Requests the velocity at (x, s) along the kernel's interpolant."""


class Moments(NamedTuple):
    """A Gaussian transition.

    Args:
        mean: (B, ...) means.
        std: Standard deviation, float64 of shape () or (B,).
    """

    mean: States
    std: Times


class DiffusionCoefficient(Settings, ABC):
    """Diffusion coefficient of the reverse SDE: with any g_t >= 0 its marginals are those of the flow."""

    @abstractmethod
    def g(self, interpolant: Interpolant, t: Times) -> Times:
        """Return g_t at times in (0, 1]: float64, of the shape of t."""


class Kernel(Settings, ABC):
    """A transition from t to s < t, given the velocity v at (x_t, t).

    A step is a generator, since some kernels request further velocities on the way.
    """

    @property
    def extra_nfe(self) -> int:
        """NFE per row and step beyond v; steps to s = 0 may need fewer."""
        return 0

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether two steps from one state can differ."""

    @abstractmethod
    def step(
        self,
        interpolant: Interpolant,
        x: States,
        v: States,
        t: Times,
        s: Times,
        noise: States | None,
        velocity: VelocityFn,
    ) -> Generator[Any, Any, States]:
        """Take a step: yield requests for further velocities and return x_s.

        Args:
            interpolant: Interpolant of states, velocities and times.
            x: (B, ...) states x_t.
            v: (B, ...) velocities at (x, t).
            t: Time in (0, 1], of shape () or (B,).
            s: Next time in [0, t), of shape () or (B,).
            noise: (B, ...) standard normal noise; may be None for a deterministic kernel.
            velocity: Request for a further velocity.

        Raises:
            ValueError: If the kernel is stochastic and noise is None.
        """

    def drawn(self, noise: States | None, x: States) -> States:
        """Return the noise of a stochastic step. Raises ValueError if it is None."""
        if noise is None:
            raise ValueError(f"{self} is stochastic: pass standard normal noise of shape {tuple(x.shape)}, not None")
        return noise


class GaussianKernel(Kernel):
    """x_s = mean + std z: one Gaussian draw and no further evaluation."""

    @abstractmethod
    def moments(self, interpolant: Interpolant, x: States, v: States, t: Times, s: Times) -> Moments:
        """Return mean and standard deviation of x_s; arguments as in `step`."""

    def step(
        self,
        interpolant: Interpolant,
        x: States,
        v: States,
        t: Times,
        s: Times,
        noise: States | None,
        velocity: VelocityFn,
    ) -> Generator[Any, Any, States]:
        yield from ()
        mean, std = self.moments(interpolant, x, v, t, s)
        return mean + broadcast_like(std, x) * self.drawn(noise, x) if self.stochastic else mean
