"""What every search shares: its settings, its declared cost and its saved state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from rollflow.checks import Settings
from rollflow.requests import Asking
from rollflow.sampler import Dynamics
from rollflow.search.propagator import Finished, Particles, Propagator


class Cost(NamedTuple):
    """What a search will spend at most, declared before anything runs; ``exact`` says it will spend just that."""

    nfe: int
    reward_calls: int
    decodes: int
    exact: bool = True
    backward_passes: int = 0


@dataclass(frozen=True)
class Progress:
    """State of a population after a step, which is all that is needed to go on from there.

    Args:
        step: Index of the evaluation time reached.
        particles: What is kept.
        nfe_left: Of the population's share.
        nfe_spent: On this step alone.
        extra: What one search needs beyond this.
        noise_level: Of the particles, for a search whose steps are not those of the sampler's grid.
        ancestors: (B,) int64 row of each particle's parent among the previous step's particles; None is its own row.
    """

    step: int
    particles: Particles
    nfe_left: int
    nfe_spent: int
    extra: Any = None
    noise_level: float | None = None
    ancestors: Tensor | None = None

    def level(self, dynamics: Dynamics) -> float:
        """Linear noise level of the particles."""
        return dynamics.noise_level(self.step) if self.noise_level is None else self.noise_level


class Search(Settings, ABC):
    """A way to spend a budget: frozen dataclass of its settings.

    Attributes:
        name: As on the command line.
        default_kernel: Name of the kernel that its paper runs it with, which a plan takes where the user names none;
            None is the default of all.
        states: Dataclasses and named tuples that its saved states hold beside those of this module; a checkpoint
            makes no other class.
    """

    name: ClassVar[str]
    default_kernel: ClassVar[str | None] = None
    states: ClassVar[tuple[type, ...]] = ()

    @abstractmethod
    def smallest_nfe(self, dynamics: Dynamics) -> int:
        """The smallest budget that works with these settings."""

    def doubt(self, dynamics: Dynamics, nfe: int) -> str | None:
        """Say why a budget that works is still not a sensible one, and what would be; None if it is."""
        return None

    @abstractmethod
    def cost(self, dynamics: Dynamics, nfe: int) -> Cost:
        """What a budget of ``nfe`` will be spent on. Raises BudgetTooSmall."""

    @abstractmethod
    def shares(self, dynamics: Dynamics, nfe: int) -> list[int]:
        """NFE of each population."""

    @abstractmethod
    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        """Run one population within ``propagator.nfe``, from the start or from a saved state."""
