"""Flow models."""

from rollflow.errors import unknown
from rollflow.models.base import FlowModel
from rollflow.models.scenes import ScenesBase

MODELS: dict[str, type[FlowModel]] = {model.name: model for model in (ScenesBase,)}
"""Every model that a name on the command line loads; a class's constructor loads its weights.

``ScenesTurbo`` joins when its weights ship (``training/train_turbo.py``)."""


def model_class(name: str) -> type[FlowModel]:
    """The class of a named model; raises UnknownName."""
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name]


__all__ = ["MODELS", "FlowModel", "model_class"]
