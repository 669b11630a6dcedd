"""The embedded models and their prompt language."""

from rollflow.models.scenes.grammar import BACKGROUNDS, KINDS, Caption, Group, PromptError, parse
from rollflow.models.scenes.model import ScenesBase, ScenesTurbo

__all__ = ["BACKGROUNDS", "KINDS", "Caption", "Group", "PromptError", "ScenesBase", "ScenesTurbo", "parse"]
