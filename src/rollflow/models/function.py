"""A function as a model: a velocity field in closed form, or a network of your own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting, described
from rollflow.models.base import FlowModel

VelocityFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""velocity(x, t): states x (B, *shape) and times t (B,) to velocities (B, *shape)."""
VelocityPair: TypeAlias = tuple[VelocityFunction, Sequence[int]]
"""A velocity function and the shape of one state, accepted wherever a model is."""


class FunctionModel(FlowModel):
    """A velocity function on the linear interpolant, x_t = (1 - t) x0 + t eps; a ``(velocity, shape)`` pair makes one.

    For an exact field, velocity(x, t) = E[eps - x0 | x_t = x]. The prompt is ignored, and a clean state is its own
    sample, so that states of shape (3, H, W) are pictures with pixels in [0, 1].

    Args:
        velocity: Velocity u_t(x), as a function of states x (B, *shape) and times t (B,), both float32 and on the CPU;
            1 is noise and 0 is data. Every row has its own time: to multiply states of shape (3, 8, 8) by their times,
            write ``t[:, None, None, None] * x``, or ``t.view(-1, *[1] * (x.ndim - 1)) * x`` for any shape. A row's
            velocity must not depend on the other rows. Both are tried once, before the first call, with a few rows
            together and alone, which are outside the budget. Guidance needs it to be differentiable. An ``nn.Module``
            with this signature can be given directly.
        shape: Shape of one state, such as ``(3, 64, 64)``.

    The ``identity``, by which a checkpoint recognises its model, covers the function's name, source, defaults and
    enclosed variables, and the global variables of its module that it reads: numbers, strings, tensors, arrays,
    networks, collections of them, and functions of the same module. It does not cover what it reads from other modules,
    from files, or from attributes of other objects.

    Raises:
        BadSetting: If ``velocity`` is not a function, or ``shape`` is not a sequence of positive whole numbers.
    """

    name = "function"
    description = "a velocity function, given as a pair with its shape"

    def __init__(self, velocity: VelocityFunction, shape: Sequence[int]) -> None:
        if isinstance(velocity, type) or not callable(velocity):
            raise checks.refused("velocity of the model", "a function velocity(x, t)", velocity)
        self._velocity = velocity
        self._tried = False
        self.shape = checks.each("shape of the model", shape, _side, "a tuple of whole numbers")
        if not self.shape:
            raise BadSetting("shape of the model is empty; give that of one state, such as (3, 64, 64)")

    def encode(self, prompt: str) -> None:
        """Return None, since the function ignores the prompt."""

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        t = t.to(x.dtype)
        if not self._tried and len(x):
            _try_rows(self._velocity, x.detach(), t.detach())
            self._tried = True
        return self._velocity(x, t)


_TOLERANCE = 0.02
"""Share of a row's largest velocity by which it may differ in a batch: kernels of low precision round differently."""


@torch.no_grad()
def _try_rows(velocity: VelocityFunction, x: Tensor, t: Tensor) -> None:
    """Check that rows with times of their own have the velocities that they have alone.

    The number of rows is none of the sides of a state, so that times which are not reshaped cannot be broadcast against
    a side in silence.

    Raises:
        ValueError: If they do not.
    """
    rows = next(count for count in itertools.count(2) if count not in x.shape[1:])
    times = t[0] * torch.linspace(1, 0.5, rows, dtype=t.dtype, device=t.device)
    states = torch.stack([x[i % len(x)] * (1 - 0.1 * i) for i in range(rows)])
    alone = [velocity(states[i : i + 1].clone(), times[i : i + 1].clone()) for i in range(rows)]
    if not all(isinstance(one, Tensor) and one.shape == x[:1].shape and bool(one.isfinite().all()) for one in alone):
        return  # it is wrong for one row already, which the call itself will show
    why = None
    try:
        together = velocity(states.clone(), times.clone())
    except Exception as error:
        why = f"it fails on {rows} rows, though not on one: {described(error)}"
    else:
        if isinstance(together, Tensor) and together.shape == states.shape:
            one_by_one = torch.cat(alone)
            apart = (together - one_by_one).abs().flatten(1).amax(1)
            if not bool((apart <= _TOLERANCE * one_by_one.abs().flatten(1).amax(1)).all()):
                why = f"the velocity of a row among {rows} is not what it is alone"
        else:
            shape = tuple(together.shape) if isinstance(together, Tensor) else type(together).__name__
            why = f"for {rows} rows it gave {shape}; expected shape {tuple(states.shape)}"
    if why is not None:
        raise ValueError(
            f"{why}; every row has a time of its own, so that t must be reshaped before it meets x: "
            "t = t.view(-1, *[1] * (x.ndim - 1)); no row may depend on the others"
        )


def _side(name: str, value: object) -> int:
    return checks.whole(name, value, at_least=1)
