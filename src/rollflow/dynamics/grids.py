"""Time grids: the times at which a sampler evaluates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import MOST_STEPS, Settings, real, refused, whole
from rollflow.dynamics.conversions import Conversion
from rollflow.dynamics.interpolants import VP, Interpolant, Linear
from rollflow.registry import Registry


class Grid(Settings, ABC):
    """A grid of times t_0 > t_1 > ... > t_steps = 0.

    Attributes:
        whole: Whether its last interval is a step like the others, however long it is, so that finishing takes no
            further steps.
    """

    whole: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, steps: int) -> Float64[Tensor, " {steps}+1"]:
        """Return the grid.

        Args:
            steps: Number of transitions, >= 1.

        Returns:
            (steps + 1,) float64 times, strictly decreasing from 1 to exactly 0.

        Raises:
            BadSetting: If steps < 1.
        """


class Warp(Grid):
    """An increasing warp of the uniform grid."""

    @abstractmethod
    def warp(self, t: Float64[Tensor, " T"]) -> Float64[Tensor, " T"]:
        """Map [0, 1] onto itself, strictly increasing."""

    def __call__(self, steps: int) -> Float64[Tensor, " {steps}+1"]:
        whole("steps of a time grid", steps, at_least=1, at_most=MOST_STEPS)
        return self.warp(torch.arange(steps, -1, -1, dtype=torch.float64) / steps)


@dataclass(frozen=True)
class Uniform(Warp):
    """Equal steps: t_i = 1 - i / steps."""

    def warp(self, t: Float64[Tensor, " T"]) -> Float64[Tensor, " T"]:
        return t


@dataclass(frozen=True)
class Arc(Warp):
    """t' = sqrt(1 - (1 - t)^2): small steps early, where the variance is large, and a long stride at the end.

    The grid for VP-SDE of Kim et al. (2025, arXiv 2503.19385). It explores rather than samples: with 10 steps its last
    transition starts at t' = 0.44, so that the result has to be finished on a finer grid.
    """

    def warp(self, t: Float64[Tensor, " T"]) -> Float64[Tensor, " T"]:
        return torch.sqrt(t * (2 - t))


@dataclass(frozen=True)
class Shifted(Warp):
    """t' = shift t / (1 + (shift - 1) t) (Esser et al., 2024, arXiv 2403.03206, equation 23).

    Multiplies the linear interpolant's noise-to-signal ratio t / (1 - t) by `shift`, since larger images need
    more noise to be hidden equally well.

    Args:
        shift: Factor of the noise-to-signal ratio, from 1e-6 to 1e6; 1 is `Uniform`, 3 the default of SD3.
    """

    shift: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        real("shift of Shifted", self.shift, at_least=1e-6, at_most=1e6)

    @classmethod
    def from_resolution(
        cls,
        tokens: int,
        base_tokens: int = 256,
        max_tokens: int = 4096,
        base_shift: float = 0.5,
        max_shift: float = 1.15,
    ) -> Shifted:
        """Return FLUX's shift: t' = e^mu / (e^mu + 1 / t - 1), with mu affine in the number of image tokens.

        Args:
            tokens: Number of image tokens that the transformer sees (FLUX: one for each 16 x 16 pixels).
            base_tokens: Number of tokens at which mu = base_shift.
            max_tokens: Number of tokens at which mu = max_shift; larger images extrapolate.
            base_shift: Value of mu at base_tokens.
            max_shift: Value of mu at max_tokens.
        """
        slope = (max_shift - base_shift) / (max_tokens - base_tokens)
        return cls(math.exp(base_shift + slope * (tokens - base_tokens)))

    def warp(self, t: Float64[Tensor, " T"]) -> Float64[Tensor, " T"]:
        # Exactly 1 at t = 1, which the textbook denominator 1 + (shift - 1) t is not.
        return self.shift * t / (self.shift * t + (1 - t))


@dataclass(frozen=True)
class Matched(Grid):
    """The times of `Linear` at which it is as noisy as another interpolant on a grid of that one's own.

        log_snr(t_i) = log_snr_bar(s_i),    t_0 = 1

    By default these are the noise levels of the VP-SDE of Kim et al. 2025 (arXiv 2503.19385, section 5: "time grid
    only"). VP starts a little short of pure noise, at 0.9935 in linear time, whereas a grid starts at 1: only the first
    time is moved, which makes the first step longer by 0.0065.

    Args:
        interpolant: Other interpolant.
        grid: Grid s_i of the other interpolant.
    """

    interpolant: Interpolant = VP()
    grid: Grid = Arc()

    def __call__(self, steps: int) -> Float64[Tensor, " {steps}+1"]:
        times = Conversion(Linear(), self.interpolant).time(self.grid(steps))
        times[0] = 1
        return times


@dataclass(frozen=True)
class Levels(Grid):
    """The times at which an interpolant has given linear noise levels sigma / (alpha + sigma), and 0.

    With as many steps as levels it visits each; with more or fewer, its levels lie on the same piecewise linear curve.
    Its last transition is a step like the others, so that a sample is finished by the last clean estimate.

    Args:
        levels: Noise levels that fall strictly from 1 to above 0.
        interpolant: Interpolant that is sampled along, whose times these are.
    """

    levels: tuple[float, ...]
    interpolant: Interpolant = Linear()
    whole = True

    def __post_init__(self) -> None:
        super().__post_init__()
        falls = all(a > b for a, b in zip((1.0 + 1e-12, *self.levels), (*self.levels, 0.0), strict=True))
        if not falls or not self.levels or self.levels[0] != 1:
            raise refused("levels of a time grid", "numbers that fall strictly from 1 to above 0", self.levels)

    def __call__(self, steps: int) -> Float64[Tensor, " {steps}+1"]:
        whole("steps of a time grid", steps, at_least=1, at_most=MOST_STEPS)
        curve = (*self.levels, 0.0)
        places = np.linspace(0, len(self.levels), steps + 1)
        levels = torch.as_tensor(np.interp(places, np.arange(len(curve)), curve))
        if isinstance(self.interpolant, Linear):
            return levels
        times = torch.zeros_like(levels)
        times[1:-1] = Conversion(self.interpolant, Linear()).time(levels[1:-1])
        times[0] = 1
        return times


GRIDS: Registry[Grid] = Registry(
    "grid", Grid, {"uniform": Uniform, "arc": Arc, "shifted": Shifted, "matched": Matched, "levels": Levels}
)
"""Every time grid, by its name on the command line."""
