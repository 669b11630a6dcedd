"""Flow models."""

import os
from pathlib import Path

from rollflow.errors import UnknownName
from rollflow.extras import check_installed
from rollflow.models.base import FlowModel, ModelSpec, Source, check_attributes
from rollflow.models.diffusers import DiffusersModel, PipelineSource
from rollflow.models.function import FunctionModel, VelocityPair
from rollflow.models.given import LoadedPipeline, PipelinePair, as_model
from rollflow.models.scenes import ScenesBase, ScenesTurbo
from rollflow.registry import Registry

MODELS: Registry[FlowModel] = Registry(
    "model", FlowModel, {model.name: model for model in (ScenesTurbo, ScenesBase)}, "rollflow.models", check_attributes
)
"""Every model that a name on the command line loads; a class's constructor loads its weights."""


def find_model(name: str) -> FlowModel | type[FlowModel] | Source:
    """Find the class in ``MODELS`` with a name, or else the pipeline of a hub repository (owner/name) or a folder.

    A text with settings, such as ``scenes-base(dtype=bfloat16)``, is a loaded model.

    Raises:
        UnknownName: If there is no such model, and the name is neither a repository nor a folder.
        BadSetting: On a setting that the model does not have, or that cannot be read.
        MissingPackage: If it is a pipeline, and diffusers is not installed.
    """
    if name.partition("(")[0] not in MODELS.names() and ("/" in name or Path(name).is_dir()):
        name = os.path.expanduser(name)
        check_installed(f"model '{name}'", "diffusers", extra="diffusers")
        return PipelineSource(name)
    try:
        return MODELS.resolve(name)
    except UnknownName as error:
        raise UnknownName(f"{error}; or give a hub repository (owner/name), or a folder with a pipeline") from None


__all__ = [
    "MODELS",
    "DiffusersModel",
    "FlowModel",
    "FunctionModel",
    "LoadedPipeline",
    "ModelSpec",
    "PipelinePair",
    "PipelineSource",
    "Source",
    "VelocityPair",
    "as_model",
    "find_model",
]
