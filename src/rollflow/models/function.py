"""A function as a model: a velocity field in closed form, or a network of your own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel

T = TypeVar("T")

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
            1 is noise and 0 is data. Every row has its own time: to multiply states of shape (3, 8, 8) by their
            times, write ``t[:, None, None, None] * x``. A row's velocity must not depend on the other rows. Guidance
            needs it to be differentiable. An ``nn.Module`` with this signature can be given directly.
        shape: Shape of one state, such as ``(3, 64, 64)``.

    Raises:
        BadSetting: If ``velocity`` is not a function, or ``shape`` is not a sequence of positive whole numbers.
    """

    name = "function"
    description = "a velocity function, given as a pair with its shape"

    def __init__(self, velocity: VelocityFunction, shape: Sequence[int]) -> None:
        if isinstance(velocity, type) or not callable(velocity):
            raise checks.refused("velocity of the model", "a function velocity(x, t)", velocity)
        self._velocity = velocity
        self.shape = checks.each("shape of the model", shape, _side, "a tuple of whole numbers")
        if not self.shape:
            raise BadSetting("shape of the model is empty; give that of one state, such as (3, 64, 64)")

    def encode(self, prompt: str) -> None:
        """Return None, since the function ignores the prompt."""

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        return self._velocity(x, t.to(x.dtype))


def _side(name: str, value: object) -> int:
    return checks.whole(name, value, at_least=1)


def as_model(model: T | VelocityPair) -> T | FunctionModel:
    """Return a ``(velocity, shape)`` pair as a ``FunctionModel``, and anything else unchanged.

    Raises:
        BadSetting: If a tuple is not such a pair.
    """
    if not isinstance(model, tuple):
        return model
    if len(model) != 2:
        raise BadSetting(
            f"a model given as a tuple must be a pair (velocity, shape); got {len(model)} item{'s' * (len(model) != 1)}"
        )
    velocity, shape = model
    if callable(shape) and not callable(velocity):
        raise BadSetting("a model given as a pair must be (velocity, shape); got the shape first")
    return FunctionModel(velocity, shape)
