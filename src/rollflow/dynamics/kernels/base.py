"""What a kernel is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias

from rollflow.checks import Settings
from rollflow.dynamics.conversions import broadcast_like
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.shapes import States, Times

VelocityFn: TypeAlias = Callable[[States, Times], Generator[Any, Any, States]]
"""A request for the velocity at (x, s), in the kernel's interpolant."""


class Moments(NamedTuple):
    """A Gaussian transition: mean of shape (B, ...), and std in float64 of shape () or (B,)."""

    mean: States
    std: Times


class Kernel(Settings, ABC):
    """A transition from t to s < t, given the velocity v at (x_t, t).

    A step is a generator, because some kernels ask for velocities of their own on the way.
    """

    @property
    def extra_nfe(self) -> int:
        """Velocity evaluations per row and step beyond v; steps to s = 0 may need none."""
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
        """Yield what the step needs evaluated, and return x_s.

        Args:
            interpolant: The one that x, v and the times belong to.
            x: State x_t, of shape (B, ...).
            v: Velocity at (x, t), of the shape of x.
            t: Time, in (0, 1], of shape () or (B,).
            s: Next time, in [0, t), of shape () or (B,).
            noise: Standard normal of the shape of x; None will do for a deterministic kernel.
            velocity: How to ask for further velocities.

        Raises:
            ValueError: If the kernel is stochastic and noise is None.
        """

    def drawn(self, noise: States | None, x: States) -> States:
        """The noise of a stochastic step. Raises ValueError if there is none."""
        if noise is None:
            raise ValueError(f"{self} is stochastic: pass standard normal noise of shape {tuple(x.shape)}, not None")
        return noise


class GaussianKernel(Kernel):
    """x_s = mean + std z: one Gaussian draw and no further evaluation."""

    @abstractmethod
    def moments(self, interpolant: Interpolant, x: States, v: States, t: Times, s: Times) -> Moments:
        """Mean and standard deviation of x_s; the arguments are those of `step`."""

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
