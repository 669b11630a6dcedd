"""Assertions that the suites share: about settings, equality of states, and global state of the process."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def docstring(kind: type) -> str:
    """Return a class's own docstring; fail if there is none."""
    text = inspect.cleandoc(vars(kind).get("__doc__") or "")
    assert text, f"{kind.__name__} has no docstring"
    assert not text.startswith(f"{kind.__name__}("), f"{kind.__name__} has only the docstring that dataclass generates"
    return text


def assert_one_line(text: object, what: str) -> None:
    """Assert that a name or description is one line that is not blank."""
    assert isinstance(text, str), f"the {what} is {text!r}; expected a str"
    assert len(text.strip().splitlines()) == 1, f"the {what} is {text!r}; expected one line"


def assert_value(thing: Any) -> None:
    """Assert that settings are plain values, tuples, or frozen dataclasses of these, whose ``repr`` is complete.

    A checkpoint recognises its job by ``repr``: without one of the settings it would accept the checkpoint of another
    job, and with an address it would not recognise its own.
    """
    if isinstance(thing, tuple):
        for part in thing:
            assert_value(part)
    elif is_dataclass(thing) and not isinstance(thing, type):
        kind: Any = type(thing)
        assert kind.__dataclass_params__.frozen, f"{kind.__name__} is not frozen"
        assert replace(thing) == thing, f"a copy of {thing} is not equal to it"
        assert hash(replace(thing)) == hash(thing)
        for setting in fields(thing):
            value = getattr(thing, setting.name)
            assert f"{setting.name}={value!r}" in repr(thing), f"the repr of {thing} leaves out {setting.name}"
            assert_value(value)
    else:
        known = thing is None or isinstance(thing, bool | int | float | str)
        assert known, f"{thing!r} is neither a plain value nor a frozen dataclass"


def same(ours: Any, theirs: Any) -> bool:
    """Return whether two states of any structure are equal to the last bit; NaN equals NaN."""
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return False
        return bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all())
    if type(ours) is not type(theirs):
        return False
    if is_dataclass(ours) and not isinstance(ours, type):
        return all(same(getattr(ours, part.name), getattr(theirs, part.name)) for part in fields(ours))
    if isinstance(ours, tuple | list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    return bool(ours == theirs or (ours != ours and theirs != theirs))


def modes() -> tuple[object, ...]:
    """Return the global modes that torch's context managers switch."""
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()


@contextmanager
def undisturbed(*tensors: Tensor) -> Iterator[None]:
    """Fail if the block draws from torch's global generator, leaves a mode switched, or writes to the tensors."""
    generator, before, copies = torch.get_rng_state(), modes(), [tensor.clone() for tensor in tensors]
    yield
    assert torch.equal(torch.get_rng_state(), generator), "it drew from torch's global generator"
    assert modes() == before, "it left one of torch's modes switched"
    assert all(map(same, tensors, copies)), "it wrote to a tensor that it was given"
