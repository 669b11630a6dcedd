"""Calls of a task's model, with checks of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rollflow.dynamics.shapes import States
from rollflow.engine.execution.faults import DECODER, DYNAMICS, Fault, finite_rows
from rollflow.engine.task import Task
from rollflow.errors import BadModel
from rollflow.models.base import Screened
from rollflow.runtime.callees import called


def encode(task: Task) -> Any:
    """Encode the prompt of a task.

    Raises:
        ValueError: If the model cannot read the prompt.
        BadModel: If the model raises anything else.
    """
    with called(f"model '{task.model.name}' failed on the prompt '{task.prompt}'", BadModel), torch.no_grad():
        try:
            return task.model.encode(task.prompt)
        except ValueError as error:
            unreadable = error
    raise unreadable


def velocity(task: Task, x: States, t: Float[Tensor, " B"], conditions: Sequence[Any]) -> States:
    """Call the model's ``velocity``.

    Returns:
        (B, ...) velocities in the dtype of the states; a copy, unless gradients are enabled.

    Raises:
        BadModel: If it raises an exception, or gives another shape or no floating-point numbers.
    """
    with called(f"the network of model '{task.model.name}' failed", BadModel):
        v = task.model.velocity(x, t, conditions)
    if not isinstance(v, Tensor) or v.shape != x.shape:
        shape = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
        raise BadModel(f"velocity of model '{task.model.name}' gave {shape}; expected shape {tuple(x.shape)}")
    _check_numbers(f"velocity of model '{task.model.name}'", v)
    v = v.to(x)
    return v if torch.is_grad_enabled() else v.detach().clone()  # a model may reuse its memory


def screened(task: Task, x0: States) -> Screened:
    """Call the model's ``screened``.

    Raises:
        BadModel: If it raises an exception, or does not give one sample of floating-point numbers for each state.
    """
    with called(f"the decoder of model '{task.model.name}' failed", BadModel):
        samples, verdicts = task.model.screened(x0)
        rejected = tuple(verdicts)
    if not isinstance(samples, Tensor) or not samples.ndim or not len(samples) == len(rejected) == len(x0):
        shape = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise BadModel(
            f"decode of model '{task.model.name}' gave {shape} for {len(x0)} clean states; expected one sample for each"
        )
    _check_numbers(f"decode of model '{task.model.name}'", samples)
    return Screened(samples if torch.is_grad_enabled() else samples.detach(), rejected)


def examined(task: Task, x0: States) -> tuple[Float[Tensor, " B *sample"], list[Fault | None]]:
    """Decode clean states and determine, before any reward is called, which samples are not eligible."""
    name, clean = task.model.name, finite_rows(x0)
    samples, rejected = screened(task, x0)
    faults = list[Fault | None]()
    for state_is_finite, sample_is_finite, who in zip(clean, finite_rows(samples), rejected, strict=True):
        if not state_is_finite:
            faults.append(Fault(DYNAMICS, f"model '{name}' was sampled to a clean state that is not finite"))
        elif not sample_is_finite:
            faults.append(Fault(DECODER, f"the decoder of model '{name}' gave pixels that are not finite"))
        else:
            faults.append(None if who is None else Fault(who, f"{who} of model '{name}' rejected the sample"))
    return samples, faults


def _check_numbers(what: str, values: Tensor) -> None:
    if values.is_meta or not values.is_floating_point():
        got = f"{values.dtype} on the device 'meta', which has no values" if values.is_meta else str(values.dtype)
        raise BadModel(f"{what} gave {got}; expected floating-point numbers")
