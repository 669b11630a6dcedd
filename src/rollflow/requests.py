"""What a search may ask, and ``drive``, which answers one search alone: the executable specification of the engine.

A search is a generator. It never touches a model or a reward; it yields requests through the helpers below
(``v = yield from velocity(x, t)``) and whoever runs it sends the answers back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

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
    """Reward of clean samples or estimates: a decode and a reward call a row. Answer: (B,) float64, finite.

    Args:
        x0: (B, ...) in the space of the model's states.
        noise_level: sigma / (alpha + sigma) of the states that promised them; 0 for finished samples.
    """

    x0: Tensor
    noise_level: float


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


Request: TypeAlias = Velocity | Reward | Decode | Save
Asking: TypeAlias = Generator[Request, Any, T]
"""A generator that yields requests and returns a T."""


def velocity(x: Tensor, t: Tensor) -> Asking[Tensor]:
    """Ask for the model's velocity at (x, t)."""
    answer: Tensor = yield Velocity(x, t.expand(len(x)))
    return answer


def reward(x0: Tensor, noise_level: float) -> Asking[Tensor]:
    """Ask for the rewards of clean samples, or of estimates made at a noise level."""
    answer: Tensor = yield Reward(x0, noise_level)
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
