"""Streams of one population: its rows are ordered by stream, with the same number for each."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rollflow.particles.resampling import Multinomial


def labels(streams: int, copies: int) -> tuple[list[int], list[int]]:
    """Return noise labels of ``copies`` rows per stream: the stream as the row, the number within it as the draw."""
    return [stream for stream in range(streams) for _ in range(copies)], list(range(copies)) * streams


def first_labels(streams: int, copies: int, *, noises: bool) -> tuple[list[int], list[int]]:
    """Return the noise labels of the first states: ``copies`` noises of each stream, or copies of one noise."""
    rows, draws = labels(streams, copies)
    return rows, draws if noises else [0] * len(draws)


def copied(streams: int, copies: int) -> Int64[Tensor, " B"]:
    """Return row indices that repeat each of ``streams`` particles ``copies`` times."""
    return torch.arange(streams).repeat_interleave(copies)


def best_of_each(reward: Float64[Tensor, " B"], streams: int) -> Int64[Tensor, " {streams}"]:
    """Return the row of the highest reward in each stream, the first of equals."""
    return _rows(reward.view(streams, -1).argmax(1), reward)


def softmax_of_each(
    reward: Float64[Tensor, " B"], uniform: Float64[Tensor, " streams"], temperature: float
) -> Int64[Tensor, " streams"]:
    """Draw one of the M rows of each stream, row i with probability softmax(r / temperature)_i.

    Args:
        reward: (B,) float64 rewards; one of -inf is not drawn while its stream has others.
        uniform: (streams,) float64 uniform draws in [0, 1) that decide.
        temperature: Temperature > 0; towards 0 this is ``best_of_each``, except that equals share their probability.

    Returns:
        (streams,) int64 row indices.
    """
    reward = reward.view(len(uniform), -1)
    best = reward.amax(1, keepdim=True)
    away = torch.where(best == -torch.inf, 0.0, reward - best)  # a stream of -inf alone: any row
    weights = torch.softmax(away / temperature, 1)
    pick = Multinomial()
    return _rows(torch.cat([pick(w, u[None], 1) for w, u in zip(weights, uniform, strict=True)]), reward)


def _rows(within: Int64[Tensor, " streams"], reward: Tensor) -> Int64[Tensor, " streams"]:
    """Return rows of the population from rows within each stream."""
    return torch.arange(len(within)) * (reward.numel() // len(within)) + within
