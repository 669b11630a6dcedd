"""How far apart samples come to lie that set out from one noise: what a search has to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from rollflow.bench.statistics import Interval, bootstrap
from rollflow.errors import RollflowError
from rollflow.models.base import FlowModel
from rollflow.models.loading import load_weights
from rollflow.requests import Asking, Request, Reward, Velocity, drive
from rollflow.rewards.detectors import WEIGHTS, ConvNeXtDetector
from rollflow.rewards.scenes import JudgeReward
from rollflow.rng import Noise
from rollflow.sampler import Sampler
from rollflow.search.base import Walk

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of decoded samples (P, ...) to others, one by one: (P,), 0 or more, symmetric, 0 for equal ones."""


@dataclass(frozen=True)
class Perceptual:
    """A distance of pictures in the features of a network, as LPIPS forms it, with uniform weights.

        d(x, y) = sum_l mean_hw || f_l(x)_hw / |f_l(x)_hw| - f_l(y)_hw / |f_l(y)_hw| ||^2

    Zhang et al. 2018, arXiv 1801.03924, equation 1. Deviation: w_l = 1, so that a layer gives twice the mean cosine
    distance of its features; LPIPS fits w to human judgements, and takes networks that were trained on photographs.
    Distances by different features cannot be compared.

    Args:
        features: Pictures (B, 3, H, W) in [0, 1] to the features of each layer, (B, C_l, H_l, W_l).
    """

    features: Callable[[Tensor], Sequence[Tensor]]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=torch.float64)
        for a, b in zip(self.features(x), self.features(y), strict=True):
            total += (_unit(a) - _unit(b)).square().sum(1).flatten(1).mean(1)
        return total


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.double(), dim=1, eps=1e-10)


def scenes_distance() -> Perceptual:
    """In the features of the held-out judge, which no search sees: its patches, and what each of its blocks makes."""
    judge = ConvNeXtDetector()
    load_weights(judge, WEIGHTS / JudgeReward.file)

    def features(pixels: Tensor) -> list[Tensor]:
        layers = [judge.stem(pixels.float() * 2 - 1)]
        for block in judge.blocks:
            layers.append(block(layers[-1]))
        return layers

    return Perceptual(features)


def mean_pairwise(samples: Tensor, distance: Distance) -> float:
    """Mean distance of the pairs of different samples (n, ...), n of 2 or more."""
    first, second = torch.triu_indices(len(samples), len(samples), 1)
    return float(distance(samples[first], samples[second]).mean())


class Diversity(NamedTuple):
    """Mean pairwise distance of samples of one noise.

    Args:
        mean: Over prompts, with its bootstrap interval.
        of: By prompt.
    """

    mean: Interval
    of: dict[str, float]


@torch.no_grad()
def diversity(
    model: FlowModel,
    prompts: Sequence[str],
    sampler: Sampler,
    distance: Distance,
    *,
    trajectories: int = 16,
    seed: int = 0,
) -> Diversity:
    """What the kernel's noise alone makes of one initial noise: table 1 of arXiv 2503.19385 (there LPIPS-MPD, on FLUX).

    For every prompt one noise is drawn, the same for all samplers of a seed, and trajectories that share nothing else.

    Args:
        model: Decodes to what ``distance`` takes.
        prompts: Different ones.
        sampler: How they move; what it returns, estimates or finished samples, is compared.
        distance: ``scenes_distance()`` for the embedded model; for others such as
            ``lambda x, y: lpips(2 * x - 1, 2 * y - 1).flatten()``.
        trajectories: A prompt, 2 or more, all in one call of the model.
        seed: Of all noise.

    Cost: a prompt, 1 + trajectories (T - 1 + F) NFE of a kernel of one evaluation, T the sampler's steps and F the
    finishing.

    Raises:
        RollflowError: On fewer than two trajectories.
    """
    if trajectories < 2:
        raise RollflowError(f"distances need at least 2 trajectories, not {trajectories}")
    dynamics = sampler.bind(model)
    walk = Walk(dynamics, Noise(seed, 0, model.shape, model.dtype), 0, model.origin)
    of = {}
    for prompt in prompts:
        clean = drive(_siblings(walk, trajectories), _answering(model, model.encode(prompt)))
        of[prompt] = mean_pairwise(model.decode(clean), distance)
    return Diversity(bootstrap(list(of.values()), seed=seed), of)


def _siblings(walk: Walk, count: int) -> Asking[Tensor]:
    """Samples of ``count`` trajectories that part at the first step."""
    root = yield from walk.start([0], [0], score=False)
    particles = root.rows(torch.zeros(count, dtype=torch.long))
    for step in range(1, walk.dynamics.transitions + 1):
        particles = yield from walk.advance(particles, step, range(count), [0] * count, score=False)
    return (yield from walk.denoise(particles)).clean


def _answering(model: FlowModel, condition: Any) -> Callable[[Request], Tensor]:
    """Answers velocities; rewards, which nothing here looks at, are 0."""

    def answer(request: Request) -> Tensor:
        match request:
            case Velocity(x, t):
                return model.velocity(x, t, [condition] * len(x))
            case Reward(x0):
                return torch.zeros(len(x0), dtype=torch.float64)
        raise TypeError(f"nothing that is walked here asks {request!r}")

    return answer
