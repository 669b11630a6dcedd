"""From names to a sample in one call, and the plan behind it."""

from rollflow.api.generation import generate
from rollflow.api.loading import load_model
from rollflow.api.plan import Plan
from rollflow.output.runs import run

__all__ = ["Plan", "generate", "load_model", "run"]
