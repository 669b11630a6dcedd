"""What a search is prepared for."""

from __future__ import annotations

from typing import NamedTuple

from rollflow.dynamics.kernels import Kernel
from rollflow.models.base import ModelSpec


class Purpose(NamedTuple):
    """What a search may depend on before it begins (``Search.prepared``).

    Args:
        model: Model that is sampled.
        rewards: Names of rewards, at least one: of the one that is optimized, of those that it wraps, and of the one
            that is reported. What is known of a later one is taken for the first if nothing is known of that.
        nfe: Budget.
        kernel: Kernel that the user chose; None if the choice is the search's.
        shortlist: Number of candidates of the final choice; 1 if there is none.
    """

    model: ModelSpec
    rewards: tuple[str, ...]
    nfe: int
    kernel: Kernel | None = None
    shortlist: int = 1

    @property
    def model_name(self) -> str:
        """Name of the model; empty if it has none."""
        return str(getattr(self.model, "name", ""))
