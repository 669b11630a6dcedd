"""What a search may ask, and ``drive``, which answers one search alone: the executable specification of the engine.

A search is a generator. It never touches a model or a reward; it yields requests through the helpers below
(``v = yield from velocity(x, t)``) and whoever runs it sends the answers back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Velocity:
    """u_t(x) of the model, in its own interpolant: 1 NFE a row.

    Args:
        x: (B, ...) states.
        t: (B,) float64 times in (0, 1].
    """

    x: Tensor
    t: Tensor


@dataclass(frozen=True, eq=False)
class Reward:
    """Reward of clean samples or estimates: a decode and a reward call a row. Answer: (B,) float64, never NaN or +inf.

    A sample that must not be chosen, since it or its score is not finite or since the model rejects it, has -inf. A
    search goes on with other samples as long as there are any, and returns one with -inf only if it has no other.

    Args:
        x0: (B, ...) in the space of the model's states.
        noise_level: sigma / (alpha + sigma) of the states that promised them; 0 for finished samples.
    """

    x0: Tensor
    noise_level: float


@dataclass(frozen=True, eq=False)
class Grad:
    """Gradient of the reward of the clean estimate E[x0 | x_t] in x_t, through decoder and network. Answer: ``Slope``.

    A NFE, a decode, a reward call and a backward pass a row.

    Args:
        x: (B, ...) states, in the model's interpolant.
        t: (B,) float64 times in (0, 1].
        noise_level: As of ``Reward``.
    """

    x: Tensor
    t: Tensor
    noise_level: float


class Slope(NamedTuple):
    """What was met on the way to a gradient, and the gradient.

    Args:
        velocity: (B, ...) u_t(x).
        clean: (B, ...) E[x0 | x_t].
        reward: (B,) float64 of ``clean``, -inf as of ``Reward``.
        gradient: (B, ...) of ``reward`` in x, always finite; 0 where the reward is -inf or has no finite gradient.
    """

    velocity: Tensor
    clean: Tensor
    reward: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class Decode:
    """Clean samples as the user sees them (pixels): a decode a row.

    Args:
        x0: (B, ...) in the space of the model's states.
    """

    x0: Tensor


@dataclass(frozen=True, eq=False)
class Save:
    """The whole state of a population after a step; a run resumes from it. Answer: None.

    Args:
        state: A frozen dataclass; ``search.base.Progress`` is the part that observers read.
    """

    state: Any


Request: TypeAlias = Velocity | Reward | Grad | Decode | Save
Asking: TypeAlias = Generator[Request, Any, T]
"""A generator that yields requests and returns a T."""


def some_rows(request: Request, start: int, stop: int) -> Request:
    """The request for rows from ``start`` to before ``stop`` alone."""
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    rows: dict[str, Any] = {name: value[start:stop] for name, value in values.items() if isinstance(value, Tensor)}
    return replace(request, **rows)


def velocity(x: Tensor, t: Tensor) -> Asking[Tensor]:
    """Ask for the model's velocity at (x, t)."""
    answer: Tensor = yield Velocity(x, t.expand(len(x)))
    return answer


def reward(x0: Tensor, noise_level: float) -> Asking[Tensor]:
    """Ask for the rewards of clean samples, or of estimates made at a noise level."""
    answer: Tensor = yield Reward(x0, noise_level)
    return answer


def grad(x: Tensor, t: Tensor, noise_level: float) -> Asking[Slope]:
    """Ask for the gradient of the reward at (x, t)."""
    answer: Slope = yield Grad(x, t.expand(len(x)), noise_level)
    return answer


def decode(x0: Tensor) -> Asking[Tensor]:
    """Ask for decoded samples."""
    answer: Tensor = yield Decode(x0)
    return answer


def save(state: object) -> Asking[None]:
    """Hand over the population's state."""
    yield Save(state)


def drive(asking: Asking[T], answer: Callable[[Request], Any]) -> T:
    """Run one generator to its end, every request answered on its own."""
    reply = None
    while True:
        try:
            request = asking.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = answer(request)
