"""The head that two rewards put on an embedding."""

from __future__ import annotations

from torch import Tensor, nn


class Stack(nn.Module):
    """Five linear maps, from D to 1024, 128, 64, 16 and 1 features, without activations between them.

    The head of improved-aesthetic-predictor (simple_inference.py, MLP) and of ImageReward (ImageReward.py, MLP), with
    the same parameter names; each ``Identity`` stands for a dropout layer, which acts in training only.

    Args:
        width: Number of features D of the embedding.
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
        """Map embeddings (B, D) to scores (B, 1)."""
        scores: Tensor = self.layers(embeddings)
        return scores
