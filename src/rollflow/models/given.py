"""Objects that stand for a model: a velocity function with its shape, or a loaded pipeline of diffusers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.models.base import FlowModel
from rollflow.models.diffusers.model import DiffusersModel
from rollflow.models.function import FunctionModel, VelocityPair

T = TypeVar("T")


class LoadedPipeline(Protocol):
    """What type checkers take for a loaded pipeline of diffusers."""

    @property
    def components(self) -> dict[str, Any]: ...


PipelinePair: TypeAlias = tuple[LoadedPipeline, Mapping[str, Any]]
"""A loaded pipeline and arguments of its call, such as ``{"height": 512}``, accepted wherever a model is."""


def is_pipeline(value: object) -> bool:
    """Whether an object is a pipeline of diffusers, which is not imported for this."""
    base = getattr(sys.modules.get("diffusers.pipelines.pipeline_utils"), "DiffusionPipeline", None)
    return base is not None and isinstance(value, base)


def as_model(model: T | VelocityPair | LoadedPipeline | PipelinePair) -> T | FlowModel:
    """Return the model that a ``(velocity, shape)`` pair or a loaded pipeline stands for, and anything else unchanged.

    A pipeline, or a pair of one and arguments of its call, becomes a ``DiffusersModel``.

    Raises:
        BadSetting: If a tuple is not such a pair.
        RollflowError: If the pipeline is not supported, or its call does not take the arguments.
    """
    if is_pipeline(model):
        return DiffusersModel(model)
    if not isinstance(model, tuple):
        return cast(T, model)
    if len(model) != 2:
        raise BadSetting(
            f"a model given as a tuple must be a pair (velocity, shape); got {len(model)} item{'s' * (len(model) != 1)}"
        )
    first: Any
    second: Any
    first, second = model
    if is_pipeline(first):
        what = "a pipeline's arguments by name, such as {'height': 512}"
        return DiffusersModel(
            first, checks.instance("the second of the pair (pipeline, arguments)", second, Mapping, what=what)
        )
    if callable(second) and not callable(first):
        raise BadSetting("a model given as a pair must be (velocity, shape); got the shape first")
    return FunctionModel(first, second)
