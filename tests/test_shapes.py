"""The shapes that signatures state are checked while tests run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from types import ModuleType
from typing import Any

import pytest
import torch
from support.shapes import ShapeError, check_shapes
from torch import Tensor

from rollflow.dynamics.conversions import denoised_from_velocity
from rollflow.dynamics.interpolants import Linear

ROWS = torch.zeros(3, 2)
TIMES = torch.zeros(3, dtype=torch.float64)


@pytest.fixture(scope="module")
def checked() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        check_shapes("support.shaped")
        return importlib.import_module("support.shaped")


def test_arguments_and_results_of_a_function(checked: ModuleType) -> None:
    assert checked.plain(ROWS, TIMES).shape == (3,)
    with pytest.raises(ShapeError, match=r"t of plain is torch.float32 of shape \(3,\)"):
        checked.plain(ROWS, TIMES.float())
    with pytest.raises(ShapeError, match=r"t of plain is torch.float64 of shape \(2,\)"):
        checked.plain(ROWS, TIMES[:2])
    with pytest.raises(ShapeError, match=r"return of plain is torch.float32 of shape \(2,\)"):
        checked.plain(ROWS, TIMES, 1)


def run(generator: Generator[Any, Any, Any], answer: Tensor) -> Any:
    next(generator)
    with pytest.raises(StopIteration) as stop:
        generator.send(answer)
    return stop.value.value


def test_arguments_and_results_of_a_generator(checked: ModuleType) -> None:
    assert run(checked.generator(ROWS), ROWS) is ROWS
    with pytest.raises(ShapeError, match="x of generator"):
        next(checked.generator(ROWS[0]))
    started = checked.generator(ROWS)
    next(started)
    with pytest.raises(ShapeError, match="return of generator"):
        started.send(ROWS[:2])


def test_fields_properties_and_class_methods(checked: ModuleType) -> None:
    assert checked.Frozen.of(ROWS).weights.shape == (3,)
    with pytest.raises(ShapeError, match=r"means of .*__init__"):
        checked.Frozen(torch.ones(2), ROWS)
    with pytest.raises(ShapeError, match=r"return of .*first"):
        _ = checked.Frozen.of(ROWS).first
    with pytest.raises(ShapeError, match=r"means of .*of"):
        checked.Frozen.of(ROWS[0])
    with pytest.raises(ShapeError, match=r"std of Pair.__new__"):
        checked.Pair(ROWS, TIMES[:2])


def test_rollflow_itself_is_checked() -> None:
    denoised_from_velocity(Linear(), ROWS, ROWS, TIMES)
    with pytest.raises(ShapeError, match="denoised_from_velocity"):
        denoised_from_velocity(Linear(), ROWS, ROWS, TIMES[:2])
