"""A stream in which nothing can be preferred."""

from __future__ import annotations

import torch

from rollflow.search.streams import softmax_of_each

DEAD = -torch.inf


def test_any_row_of_a_dead_stream_is_as_good() -> None:
    """Its draw decides, evenly; a living stream beside it is nothing to it."""
    reward = torch.tensor([DEAD, DEAD, DEAD, DEAD, 0.0, DEAD, 1.0, DEAD], dtype=torch.float64)
    for u, row in ((0.0, 0), (0.3, 1), (0.6, 2), (0.9, 3)):
        uniform = torch.tensor([u, 0.0], dtype=torch.float64)
        assert softmax_of_each(reward, uniform, 0.5).tolist() == [row, 4]
