"""Pipelines of diffusers as flow models."""

from rollflow.models.diffusers.model import DiffusersModel
from rollflow.models.diffusers.source import PipelineSource, read_argument

__all__ = ["DiffusersModel", "PipelineSource", "read_argument"]
