"""Look-aheads: predictions of the clean sample from a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from rollflow.checks import MOST_STEPS, Settings, whole
from rollflow.dynamics.conversions import as_float, denoised_from_velocity
from rollflow.dynamics.interpolants import Interpolant
from rollflow.dynamics.shapes import States
from rollflow.registry import Registry
from rollflow.requests import Asking, velocity


class Lookahead(Settings, ABC):
    """A prediction of the clean sample from a state and its velocity, which is what the reward scores.

    Attributes:
        extra_nfe: NFE per row beyond the state's own evaluation.
    """

    extra_nfe: int = 0

    @abstractmethod
    def clean(self, interpolant: Interpolant, x: States, v: States, t: Float64[Tensor, ""]) -> Asking[Tensor]:
        """Predict x0 of states x (B, ...) with velocities v (B, ...) at time t (), along the model's interpolant."""


@dataclass(frozen=True)
class Tweedie(Lookahead):
    """The posterior mean E[x0 | x_t], free with the velocity (Efron 2011; arXiv 2503.19385, section 3)."""

    def clean(self, interpolant: Interpolant, x: States, v: States, t: Float64[Tensor, ""]) -> Asking[Tensor]:
        yield from ()
        return denoised_from_velocity(interpolant, v, x, as_float(t))


@dataclass(frozen=True)
class ODELookahead(Lookahead):
    """The end of the flow ODE from x_t in ``steps`` Euler steps, the last of which is the clean estimate.

    Sharper than the posterior mean, which is blurred at high noise levels.

    Args:
        steps: Number of Euler steps from t to 0, >= 1; 1 is ``Tweedie``.

    Cost: ``steps - 1`` NFE beyond the state's own evaluation.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("steps of the look-ahead", self.steps, at_least=1, at_most=MOST_STEPS)

    @property
    def extra_nfe(self) -> int:  # type: ignore[override]
        return self.steps - 1

    def clean(self, interpolant: Interpolant, x: States, v: States, t: Float64[Tensor, ""]) -> Asking[Tensor]:
        return (yield from integrate(interpolant, x, v, t, self.steps))


def integrate(interpolant: Interpolant, x: States, v: States, t: Float64[Tensor, ""], steps: int) -> Asking[Tensor]:
    """Solve the flow ODE from (x, t) to 0 in equal Euler steps, given v at (x, t), for ``steps - 1`` NFE a row.

    The last step returns the clean estimate, which on the linear interpolant is the Euler step itself, and which stays
    finite on interpolants whose velocity is infinite at t = 0.
    """
    times = t * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for here, there in pairwise(times[:-1]):
        x = x + (there - here).to(x.dtype) * v
        v = yield from velocity(x, there)
    return denoised_from_velocity(interpolant, v, x, times[-2])


LOOKAHEADS: Registry[Lookahead] = Registry("look-ahead", Lookahead, {"tweedie": Tweedie, "ode": ODELookahead})
"""Every look-ahead, by its name on the command line."""
