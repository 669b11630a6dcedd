"""What stands on top of an embedding."""

from __future__ import annotations

from torch import Tensor, nn


class Stack(nn.Module):
    """Five linear maps, D to 1024 to 128 to 64 to 16 to 1, with nothing that is not linear between them.

    Of improved-aesthetic-predictor (simple_inference.py, MLP) and of ImageReward (ImageReward.py, MLP), with their
    names of weights; they drop out in training where an ``Identity`` stands.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, D) to (B, 1)."""
        mapped: Tensor = self.layers(embeddings)
        return mapped
