"""Requests for a part of the rows, and the gradient's."""

from __future__ import annotations

import pytest
import torch

from rollflow.requests import Decode, Grad, Request, Reward, Save, Velocity, grad, slice_rows

X, T = torch.arange(12.0).reshape(4, 3), torch.tensor([0.9, 0.7, 0.5, 0.3])


@pytest.mark.parametrize(
    "request_", [Velocity(X, T), Grad(X, T, 0.4), Reward(X, 0.4), Decode(X)], ids=lambda r: type(r).__name__
)
def test_rows_of_a_request(request_: Request) -> None:
    """Every tensor is cut, and nothing else is."""
    part = slice_rows(request_, 1, 3)
    assert type(part) is type(request_)
    for name, value in vars(request_).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(part, name), value[1:3])
        else:
            assert getattr(part, name) == value == 0.4


def test_a_save_has_no_rows() -> None:
    assert vars(slice_rows(Save("state"), 0, 0)) == {"state": "state"}


@pytest.mark.parametrize("t", [torch.tensor(0.3), T], ids=["one", "rows"])
def test_grad_asks_with_a_time_for_every_row(t: torch.Tensor) -> None:
    request = next(grad(X, t, 0.25))
    assert isinstance(request, Grad)
    assert torch.equal(request.x, X)
    assert torch.equal(request.t, t.expand(4))
    assert request.noise_level == 0.25
