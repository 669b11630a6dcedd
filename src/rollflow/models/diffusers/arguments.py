"""Checks of a class of pipelines and its arguments, which need no loaded pipeline."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

from rollflow.errors import BadSetting, RollflowError, UnknownName, unknown

GIVEN = {
    "prompt": "it is the prompt of the search",
    "latents": "the search draws them by its seed",
    "generator": "the search draws by its seed",
    "num_inference_steps": "it is set by steps (--steps)",
    "timesteps": "times are set by the grid (--grid)",
    "sigmas": "times are set by the grid (--grid)",
    "output_type": "samples are decoded to pictures",
    "return_dict": "samples are decoded to pictures",
    "num_images_per_prompt": "it is set by the search and its budget (--method, --nfe)",
    "num_videos_per_prompt": "it is set by the search and its budget (--method, --nfe)",
}
"""Arguments of a pipeline that users cannot set, with the reason."""

STEP_COUNTERS = ("cfg_trunc_ratio", "skip_guidance_layers")
"""Arguments that choose the steps of the loop at which to guide."""

NUMBERS = {int, float, bool, type(None)}
CALLBACKS = ("callback", "callback_on_step_end")

FEW_STEP_NAMES = ("schnell", "turbo", "lightning", "hyper", "sprint", "lcm", "dmd", "distilled", "klein")
FEW_STEP_SCHEDULERS = ("LCM", "TCD", "SCM")


def check_arguments(pipeline: type, arguments: Mapping[str, Any]) -> None:
    """Check arguments for the call of a class of pipelines.

    Args:
        pipeline: Class of the pipeline.
        arguments: Arguments of its call.

    Raises:
        UnknownName: If the call has no such argument, or the search sets it.
        BadSetting: If a value has the wrong type.
        RollflowError: If an argument is one of ``STEP_COUNTERS``.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    known = [name for name in parameters if name not in ("self", *GIVEN)]
    for name, value in arguments.items():
        if name in GIVEN and name in parameters:
            raise UnknownName(f"{name} of {pipeline.__name__} cannot be set: {GIVEN[name]}; leave it out")
        if name not in known:
            raise unknown(f"argument of {pipeline.__name__}", name, known)
        if name in STEP_COUNTERS:
            raise RollflowError(
                f"{name} guides by the number of the step, which does not exist in a search, since it visits times in "
                "any order; leave it out"
            )
        annotation = parameters[name].annotation
        is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
        kinds = set(typing.get_args(annotation)) if is_union else {annotation}
        if kinds <= NUMBERS and isinstance(value, str | list | tuple | dict):
            expected = " or ".join(sorted(kind.__name__ for kind in kinds - {type(None)}))
            raise BadSetting(f"{name} of {pipeline.__name__} must be {expected}, not {value!r}")
        if name in CALLBACKS and not (value is None or callable(value)):
            raise BadSetting(f"{name} of {pipeline.__name__} must be a function, not {value!r}; leave it out")


def check_kind(pipeline: type) -> None:
    """Raise a RollflowError if the calls of a pipeline class take no prompt or number of steps."""
    if not {"prompt", "num_inference_steps"} <= set(inspect.signature(pipeline.__call__).parameters):
        raise RollflowError(
            f"a search cannot drive {pipeline.__name__}; expected a diffusers pipeline that generates samples from a "
            "prompt in a number of denoising steps"
        )


def is_few_step(name: str, scheduler: type, config: Mapping[str, Any]) -> bool:
    """Whether a pipeline is step-distilled, by its configuration, or else by its name and that of its scheduler."""
    if config.get("is_distilled") is not None:
        return bool(config["is_distilled"])
    by_name = any(part in name.lower() for part in FEW_STEP_NAMES)
    return by_name or any(part in scheduler.__name__ for part in FEW_STEP_SCHEDULERS)
