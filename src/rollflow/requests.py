"""The requests that a search can make, and ``drive``, which answers them one by one.

A search is a generator. It never calls a model or a reward; it yields requests through the helpers below
(``v = yield from velocity(x, t)``), and its runner sends the answers back. ``drive`` is the executable
specification of the engine, which answers many searches at once and must return the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor

from rollflow.errors import RollflowError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Velocity:
    """The model's velocity u_t(x), along its own interpolant: 1 NFE per row.

    Args:
        x: (B, ...) states.
        t: (B,) float64 times in (0, 1].
    """

    x: Tensor
    t: Tensor


@dataclass(frozen=True, eq=False)
class Reward:
    """Rewards of clean samples or estimates: a decode and a reward call per row.

    The answer is (B,) float64, never NaN or +inf. A sample that must not be chosen has reward -inf: it or its score is
    not finite, or the model rejects it. A search continues with other samples as long as there are any, and returns one
    with -inf only if it has no other.

    Args:
        x0: (B, ...) clean samples in the space of the model's states.
        noise_level: Linear noise level sigma / (alpha + sigma) of the states that the estimates were made from; 0 for
            finished samples.
    """

    x0: Tensor
    noise_level: float


@dataclass(frozen=True, eq=False)
class Grad:
    """Gradient of the reward of the clean estimate E[x0 | x_t] with respect to x_t, through decoder and network.

    The answer is a ``Slope``. Each row costs 1 NFE, a decode, a reward call and a backward pass.

    Args:
        x: (B, ...) states along the model's interpolant.
        t: (B,) float64 times in (0, 1].
        noise_level: Linear noise level of the states.
    """

    x: Tensor
    t: Tensor
    noise_level: float


class Slope(NamedTuple):
    """A gradient of the reward, with the intermediate results of its computation.

    Args:
        velocity: (B, ...) velocities u_t(x).
        clean: (B, ...) clean estimates E[x0 | x_t].
        reward: (B,) float64 rewards of ``clean``; -inf as in ``Reward``.
        gradient: (B, ...) gradients of ``reward`` with respect to x, always finite: 0 where the reward is -inf or has
            no finite gradient.
    """

    velocity: Tensor
    clean: Tensor
    reward: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class Decode:
    """Clean samples as the user sees them, such as pixels: a decode per row.

    Args:
        x0: (B, ...) clean samples in the space of the model's states.
    """

    x0: Tensor


@dataclass(frozen=True, eq=False)
class Save:
    """The state of a population after a step, from which a run can be resumed. The answer is None.

    Args:
        state: State of the population, a ``search.Progress``.
    """

    state: Any


Request: TypeAlias = Velocity | Reward | Grad | Decode | Save
Asking: TypeAlias = Generator[Request, Any, T]
"""A generator that yields requests and returns a T."""


def as_request(who: str, yielded: object) -> Request:
    """Check what a search yielded, since nothing but a request would ever be answered.

    Args:
        who: The search, as errors call it.
        yielded: What it yielded.

    Raises:
        RollflowError: If it is no request.
    """
    if not isinstance(yielded, Request):
        raise RollflowError(f"{who} yielded {type(yielded).__name__}, which is not a request; use 'yield from'")
    return yielded


def slice_rows(request: Request, start: int, stop: int) -> Request:
    """Return the request for rows ``start`` to ``stop`` - 1 alone."""
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    sliced: dict[str, Any] = {name: value[start:stop] for name, value in values.items() if isinstance(value, Tensor)}
    return replace(request, **sliced)


def velocity(x: Tensor, t: Tensor) -> Asking[Tensor]:
    """Request the model's velocity at (x, t)."""
    answer: Tensor = yield Velocity(x, t.expand(len(x)))
    return answer


def reward(x0: Tensor, noise_level: float) -> Asking[Tensor]:
    """Request the rewards of clean samples, or of estimates made at a noise level."""
    answer: Tensor = yield Reward(x0, noise_level)
    return answer


def grad(x: Tensor, t: Tensor, noise_level: float) -> Asking[Slope]:
    """Request the gradient of the reward at (x, t)."""
    answer: Slope = yield Grad(x, t.expand(len(x)), noise_level)
    return answer


def decode(x0: Tensor) -> Asking[Tensor]:
    """Request decoded samples."""
    answer: Tensor = yield Decode(x0)
    return answer


def save(state: object) -> Asking[None]:
    """Save the population's state."""
    yield Save(state)


def drive(asking: Asking[T], answer: Callable[[Request], Any]) -> T:
    """Run a generator to its end, answering each request on its own."""
    reply = None
    while True:
        try:
            request = asking.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = answer(request)
