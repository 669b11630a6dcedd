"""Kernels that break one promise each."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rollflow.dynamics.interpolants import Interpolant, Linear
from rollflow.dynamics.kernels import DDIM, Euler, Heun, Kernel, Moments, Renoise, VelocityFn
from rollflow.testing import KernelSuite

LINEAR = Linear()


class Silent(Euler):
    """Of the law it says nothing."""


@dataclass(frozen=True)
class Secretive(DDIM):
    secret: int = field(default=1, repr=False)


class Noisy(Renoise):
    """Draws what it is not given."""

    def drawn(self, noise: Tensor | None, x: Tensor) -> Tensor:
        return torch.randn_like(x) if noise is None else noise


class Drawing(Renoise):
    """Draws what it is given."""

    def drawn(self, noise: Tensor | None, x: Tensor) -> Tensor:
        super().drawn(noise, x)
        return torch.randn_like(x)


class Still(Euler):
    stochastic = True


class Restless(Euler):
    """Says that it is deterministic."""

    def step(
        self, interpolant: Interpolant, x: Tensor, v: Tensor, t: Tensor, s: Tensor, noise: Any, velocity: VelocityFn
    ) -> Generator[Any, Any, Tensor]:
        return Renoise().step(interpolant, x, v, t, s, noise, velocity)


class Greedy(Heun):
    extra_nfe = 0


@dataclass(frozen=True)
class Moved(Euler):
    """A step of Euler's, put wrong."""

    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x

    def moments(self, interpolant: Interpolant, x: Tensor, v: Tensor, t: Tensor, s: Tensor) -> Moments:
        mean, std = super().moments(interpolant, x, v, t, s)
        return Moments(self.wrong(mean, t, s), std)


class Widened(Moved):
    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x.double()


class Flattened(Moved):
    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x.flatten(1)


class Coarse(Moved):
    """Does its arithmetic in half precision where states are not float64."""

    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x if x.dtype == torch.float64 else x.half().to(x.dtype)


class Partial(Moved):
    """Forgets the times where every row has its own."""

    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x * (1 + t - s) if t.ndim == 0 else x


class Hasty(Moved):
    """Takes the first row's time for all."""

    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x + t.flatten()[0].to(x)


class Averaging(Moved):
    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return x + 1e-6 * x.mean(0)


class Endless(Moved):
    """Divides by s."""

    def wrong(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        scale = (s / s).to(x)
        return x * (scale if s.ndim == 0 else scale.reshape(-1, *[1] * (x.ndim - 1)))


class Boastful(Renoise):
    """All noise anew.

    Converges to the data law: yes.
    """


class Modest(Euler):
    """The flow ODE.

    Converges to the data law: no.
    """


of = KernelSuite
CASES: list[tuple[Any, Kernel, tuple[Any, ...]]] = [
    (of.test_it_says_what_it_is, Silent(), ()),
    (of.test_its_settings_are_a_value, Secretive(), ()),
    *(
        (of.test_noise_is_used_if_and_only_if_it_is_stochastic, kind(), (LINEAR,))
        for kind in (Noisy, Drawing, Still, Restless)
    ),
    (of.test_it_asks_for_as_many_velocities_as_it_declares, Greedy(), (LINEAR,)),
    *((of.test_shape_and_dtype_are_kept, kind(), (torch.float32,)) for kind in (Widened, Flattened, Coarse)),
    (of.test_one_time_for_all_is_that_time_for_each, Partial(), (LINEAR,)),
    *((of.test_rows_do_not_depend_on_each_other, kind(), (LINEAR,)) for kind in (Hasty, Averaging)),
    (of.test_it_reaches_the_end, Endless(), (LINEAR,)),
    *((of.test_the_law, kind(), ()) for kind in (Boastful, Modest)),
]
