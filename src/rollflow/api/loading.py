"""Loading of models and rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollflow import checks
from rollflow.errors import BadSetting, blamed
from rollflow.models import DiffusersModel, FlowModel, Source, as_model, find_model
from rollflow.rewards import RewardModel, scoring
from rollflow.rewards.checks import check_reward

_LOADABLE = "a name, a PipelineSource, a pipeline of diffusers or a pair (velocity, shape)"


def load_model(
    model: str | Source | Any, arguments: Mapping[str, Any] | None = None, *, few_step: bool | None = None
) -> FlowModel:
    """Load a model, to use it in many calls of ``generate``.

    Args:
        model: A name, as for ``generate``; a ``PipelineSource``, which says how to load a pipeline; a loaded diffusers
            pipeline, with any LoRA, quantization, offloading or compilation; or a pair of a velocity function and the
            shape of its states (``FunctionModel``), or of a loaded pipeline and the arguments of its call.
        arguments: Arguments of a loaded pipeline's call, such as
            ``{"height": 512, "width": 512, "guidance_scale": 3.5}``.
        few_step: Whether a loaded pipeline is step-distilled; None decides by its configuration, its name and the name
            of its scheduler.

    Raises:
        RollflowError: If the model cannot be loaded, is not a supported pipeline, or does not take the arguments.
    """
    if isinstance(model, str):
        model = find_model(model)
        if isinstance(model, FlowModel) and not arguments and few_step is None:
            return model
    if isinstance(model, Source | type | tuple):
        if arguments or few_step is not None:
            raise BadSetting(
                "arguments and few_step are only for a loaded pipeline; for one given by name, use "
                "PipelineSource(name, arguments, distilled=few_step)"
            )
        if isinstance(model, tuple):
            return as_model(model)
        if isinstance(model, type) and not issubclass(model, FlowModel):
            raise checks.refused("model", _LOADABLE, model)
        with blamed(f"model '{getattr(model, 'name', model)}' cannot be loaded"):
            loaded: FlowModel = model.load() if isinstance(model, Source) else model()
        return loaded
    if isinstance(model, FlowModel):
        raise BadSetting(f"model '{model.name}' is already loaded; use it as it is")
    if model is None or isinstance(model, bool | int | float | list | dict | set | bytes):
        raise checks.refused("model", _LOADABLE, model)
    return DiffusersModel(model, arguments, few_step=few_step)


def load_reward(reward: RewardModel | type[RewardModel]) -> RewardModel:
    """Load a reward, given as an object or by its class."""
    with blamed(f"reward '{reward.name}' cannot be loaded"):
        loaded = reward() if isinstance(reward, type) else reward
        check_reward("reward", loaded)
    scoring.load(loaded)
    return loaded
