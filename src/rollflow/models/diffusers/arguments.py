"""What a class of pipelines is, before one is loaded: whether a search can drive it, and which arguments it takes."""

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
    "num_inference_steps": "it is given by steps (--steps)",
    "timesteps": "times are given by the grid (--grid)",
    "sigmas": "times are given by the grid (--grid)",
    "output_type": "samples are decoded to pictures",
    "return_dict": "samples are decoded to pictures",
    "num_images_per_prompt": "it is given by the search and its budget (--method, --nfe)",
    "num_videos_per_prompt": "it is given by the search and its budget (--method, --nfe)",
}
"""Arguments of a pipeline that are not the user's, since a search decides them, and what decides them."""

STEP_COUNTERS = ("cfg_trunc_ratio", "skip_guidance_layers")
"""Arguments that say at which of the loop's steps to guide."""

NUMBERS = {int, float, bool, type(None)}
CALLBACKS = ("callback", "callback_on_step_end")

FEW_STEP_NAMES = ("schnell", "turbo", "lightning", "hyper", "sprint", "lcm", "dmd", "distilled", "klein")
FEW_STEP_SCHEDULERS = ("LCM", "TCD", "SCM")


def check_arguments(pipeline: type, arguments: Mapping[str, Any]) -> None:
    """Raise on an argument that the call of a class of pipelines does not take, or that no search can honour.

    Raises:
        UnknownName: On a name that it does not have, or that a search decides.
        BadSetting: On a value of another type than the argument's.
        RollflowError: On one of ``STEP_COUNTERS``.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    known = [name for name in parameters if name not in ("self", *GIVEN)]
    for name, value in arguments.items():
        if name in GIVEN and name in parameters:
            raise UnknownName(f"{name} of {pipeline.__name__} is no argument to give: {GIVEN[name]}; leave it out")
        if name not in known:
            raise unknown(f"argument of {pipeline.__name__}", name, known)
        if name in STEP_COUNTERS:
            raise RollflowError(
                f"{name} guides by the number of the step, which a search does not have, since it visits any time any "
                "number of times; leave it out"
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
    """Raise on a class whose objects are not called with a prompt and a number of steps."""
    if not {"prompt", "num_inference_steps"} <= set(inspect.signature(pipeline.__call__).parameters):
        raise RollflowError(
            f"{pipeline.__name__} is no pipeline that a search can drive; expected one of diffusers that denoises, "
            "step by step, what a prompt asks for"
        )


def is_few_step(name: str, scheduler: type, config: Mapping[str, Any]) -> bool:
    """Whether a pipeline is step-distilled: as its configuration says, or else its name or its scheduler's."""
    if config.get("is_distilled") is not None:
        return bool(config["is_distilled"])
    said = any(part in name.lower() for part in FEW_STEP_NAMES)
    return said or any(part in scheduler.__name__ for part in FEW_STEP_SCHEDULERS)
