"""Flow models."""

from rollflow.models.base import FlowModel
from rollflow.models.scenes import ScenesBase
from rollflow.registry import Registry

MODELS: Registry[FlowModel] = Registry(
    "model", FlowModel, {model.name: model for model in (ScenesBase,)}, "rollflow.models"
)
"""Every model that a name on the command line loads; a class's constructor loads its weights.

``ScenesTurbo`` joins when its weights ship (``training/train_turbo.py``)."""

__all__ = ["MODELS", "FlowModel"]
