"""Streams side by side in one population: their rows lie stream by stream, as many for each."""

from __future__ import annotations

import torch
from torch import Tensor

from rollflow.particles.resampling import Multinomial


def labels(streams: int, copies: int) -> tuple[list[int], list[int]]:
    """Noise labels of ``copies`` rows a stream: the stream as the row, the number within it as the draw."""
    return [stream for stream in range(streams) for _ in range(copies)], list(range(copies)) * streams


def copied(streams: int, copies: int) -> Tensor:
    """Rows that repeat each of ``streams`` particles ``copies`` times."""
    return torch.arange(streams).repeat_interleave(copies)


def best_of_each(reward: Tensor, streams: int) -> Tensor:
    """Row of the highest reward (B,) in each stream, the first of equals: (streams,)."""
    return _rows(reward.view(streams, -1).argmax(1), reward)


def softmax_of_each(reward: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """One row of each stream, row i of its M with probability softmax(r / temperature)_i.

    Args:
        reward: (B,) float64, or -inf, of which none is picked while there are others in its stream.
        uniform: (streams,) float64 in [0, 1), the draws that decide.
        temperature: > 0; towards 0 this is ``best_of_each``, but that equals share their probability.

    Returns:
        (streams,).
    """
    reward = reward.view(len(uniform), -1)
    best = reward.amax(1, keepdim=True)
    away = torch.where(best == -torch.inf, 0.0, reward - best)  # where there is nothing to prefer, any
    weights = torch.softmax(away / temperature, 1)
    pick = Multinomial()
    return _rows(torch.cat([pick(w, u[None], 1) for w, u in zip(weights, uniform, strict=True)]), reward)


def _rows(within: Tensor, reward: Tensor) -> Tensor:
    """Rows of the population from places within each stream."""
    return torch.arange(len(within)) * (reward.numel() // len(within)) + within
