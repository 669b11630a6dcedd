"""Requests, and ``drive`` on small generators."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import torch

from rollflow.requests import Asking, Decode, Request, Reward, Save, Velocity, decode, drive, reward, save, velocity

X = torch.tensor([[1.0], [2.0], [4.0]])


def test_drive_answers_in_order_and_returns_the_result() -> None:
    """Each request is answered once, its answer reaches the line that asked, and nested generators are transparent."""
    seen: list[type[Request]] = []

    def answer(request: Request) -> Any:
        seen.append(type(request))
        match request:
            case Velocity(x, t):
                return x * t[:, None]
            case Reward(x0, noise_level):
                return x0[:, 0] + noise_level
            case Decode(x0):
                return -x0
            case Save(state):
                assert state == "half way"

    def inner() -> Asking[torch.Tensor]:
        v = yield from velocity(X, torch.tensor(0.5))
        yield from save("half way")
        return v

    def outer() -> Asking[tuple[torch.Tensor, torch.Tensor]]:
        v = yield from inner()
        r = yield from reward(v, 0.25)
        return r, (yield from decode(v))

    rewards, decoded = drive(outer(), answer)
    assert seen == [Velocity, Save, Reward, Decode]
    assert rewards.tolist() == [0.75, 1.25, 2.25]
    assert decoded.tolist() == [[-0.5], [-1.0], [-2.0]]


def test_drive_of_a_generator_that_asks_nothing() -> None:
    def silent() -> Asking[str]:
        yield from ()
        return "done"

    def refuse(request: Request) -> None:
        raise AssertionError(request)

    assert drive(silent(), refuse) == "done"


def test_drive_lets_errors_through_from_both_sides() -> None:
    """An error of the answer, and one of the search, reach the caller as they are."""

    def failing(request: Request) -> None:
        raise ZeroDivisionError("model")

    def broken() -> Generator[Request, Any, None]:
        yield Save(None)
        raise LookupError("search")

    with pytest.raises(ZeroDivisionError, match="model"):
        drive(velocity(X, torch.tensor(1.0)), failing)
    with pytest.raises(LookupError, match="search"):
        drive(broken(), lambda request: None)


@pytest.mark.parametrize("t", [torch.tensor(0.3), torch.tensor([0.3]), torch.tensor([0.1, 0.2, 0.3])], ids=str)
def test_times_are_one_a_row(t: torch.Tensor) -> None:
    """What the model sees has a time for every row, whatever the search gave."""
    request = next(velocity(X, t))
    assert isinstance(request, Velocity)
    assert request.t.tolist() == (t.tolist() if t.shape == (3,) else [t.item()] * 3)
    assert request.x is X
