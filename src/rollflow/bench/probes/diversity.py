"""Diversity of samples from one initial noise: what a search has to choose from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from rollflow.bench.intervals import Interval, interval
from rollflow.errors import RollflowError, unknown
from rollflow.extras import check_installed, requiring
from rollflow.models.base import FlowModel
from rollflow.models.loading import load_weights
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Request, Reward, Velocity, drive
from rollflow.rewards.scenes.detectors import WEIGHTS, ConvNeXtDetector
from rollflow.rewards.scenes.scenes import JudgeReward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search.propagator import Propagator

SampleDistance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Pairwise distance of two batches of decoded samples (P, ...): (P,), non-negative, symmetric, 0 for equal samples."""


@dataclass(frozen=True)
class Perceptual:
    """Distance of pictures in the features of a network, formed as in LPIPS but with uniform weights.

        d(x, y) = sum_l mean_hw || f_l(x)_hw / |f_l(x)_hw| - f_l(y)_hw / |f_l(y)_hw| ||^2

    Zhang et al. 2018, arXiv 1801.03924, equation 1. Deviation: w_l = 1, so that a layer gives twice the mean cosine
    distance of its features; LPIPS fits w to human judgements, and uses networks trained on photographs. Distances by
    different features cannot be compared.

    Args:
        features: Function from pictures (B, 3, H, W) in [0, 1] to the features of each layer, (B, C_l, H_l, W_l).
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
    """Return the distance in the features of the held-out judge, which no search sees: its patches and all blocks."""
    judge = ConvNeXtDetector()
    load_weights(judge, WEIGHTS / JudgeReward.file)

    def features(pixels: Tensor) -> list[Tensor]:
        layers = [judge.stem(pixels.float() * 2 - 1)]
        for block in judge.blocks:
            layers.append(block(layers[-1]))
        return layers

    return Perceptual(features)


def lpips_distance() -> SampleDistance:
    """Return LPIPS with AlexNet (arXiv 1801.03924) from the package ``lpips``; for videos the mean over frames.

    Raises:
        RollflowError: If the package is not installed.
    """
    with requiring("the distance 'lpips'", None, "lpips"):
        import lpips
    network = lpips.LPIPS(net="alex", verbose=False).eval()

    def distance(x: Tensor, y: Tensor) -> Tensor:
        frames = [2 * samples.float().flatten(0, -4) - 1 for samples in (x, y)]
        return cast(Tensor, network(*frames)).double().view(len(x), -1).mean(1)

    return distance


DISTANCES: dict[str, Callable[[], SampleDistance]] = {"scenes": scenes_distance, "lpips": lpips_distance}
"""Constructors of distances by name."""


def check_distance(name: str) -> None:
    """Raise an error if a distance is not available, without loading anything.

    Raises:
        UnknownName: If there is no distance of that name.
        RollflowError: If its package is not installed.
    """
    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    if name == "lpips":
        check_installed("the distance 'lpips'", "lpips")


def distance_of(name: str) -> SampleDistance:
    """Load a distance by its name.

    Raises:
        UnknownName: If there is no distance of that name.
        RollflowError: If it is not available.
    """
    check_distance(name)
    return DISTANCES[name]()


def mean_pairwise(samples: Tensor, distance: SampleDistance) -> float:
    """Return the mean distance over all pairs of samples (n, ...), n at least 2."""
    rows = (distance(one.expand_as(later), later) for one, later in _pairs(samples))
    return float(torch.cat(list(rows)).mean())


def _pairs(samples: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every sample with those after it."""
    return ((samples[i], samples[i + 1 :]) for i in range(len(samples) - 1))


class Diversity(NamedTuple):
    """Mean pairwise distance of samples from one noise.

    Args:
        mean: Mean over prompts with its interval.
        of: Value of each prompt.
    """

    mean: Interval
    of: dict[str, float]


def diversity(
    model: FlowModel,
    prompts: Sequence[str],
    sampler: Sampler,
    distance: SampleDistance,
    *,
    trajectories: int = 16,
    seed: int = 0,
    noises: int = 1,
) -> Diversity:
    """Measure the diversity due to the kernel's noise alone: table 1 of arXiv 2503.19385 (there LPIPS-MPD, on FLUX).

    For every prompt one initial noise is drawn, which depends on the seed but not on the sampler, and trajectories
    that share nothing else. With as many noises as trajectories it measures the diversity that could be reached.

    Args:
        model: Flow model whose decoded samples ``distance`` accepts.
        prompts: Distinct prompts.
        sampler: Dynamics of the trajectories; the samples that it returns, estimates or finished, are compared.
        distance: Distance between samples: ``scenes_distance()`` for the embedded model, ``lpips_distance()`` for
            others.
        trajectories: Number of trajectories per prompt, at least 2, all in one call of the model.
        seed: Seed of all random draws.
        noises: Number of initial noises, which the trajectories start from in turn, 1 to ``trajectories``.

    Cost: ``diversity_nfe`` for each prompt.

    Raises:
        RollflowError: If there are fewer than two trajectories.
    """
    of = {prompt: diversity_of(model, prompt, sampler, distance, trajectories, seed, noises) for prompt in prompts}
    return Diversity(interval(list(of.values()), seed=seed), of)


@torch.no_grad()
def diversity_of(
    model: FlowModel,
    prompt: str,
    sampler: Sampler,
    distance: SampleDistance,
    trajectories: int,
    seed: int,
    noises: int = 1,
) -> float:
    """Measure the diversity for one prompt; see ``diversity``."""
    if trajectories < 2:
        raise RollflowError(f"distances need at least 2 trajectories, got {trajectories}")
    propagator = Propagator(sampler.bind(model), Noise(seed, 0, model.shape, model.dtype), 0, model.origin)
    clean = drive(_samples(propagator, trajectories, noises), _answering(model, model.encode(prompt)))
    return mean_pairwise(model.decode(clean), distance)


def diversity_nfe(dynamics: Dynamics, trajectories: int, noises: int = 1) -> int:
    """Return the NFE of the diversity of one prompt: one evaluation per noise, and the trajectories from there."""
    return noises + trajectories * (dynamics.transitions * dynamics.propagate_nfe + dynamics.finish_nfe)


def _samples(propagator: Propagator, count: int, noises: int) -> Asking[Tensor]:
    """Sample ``count`` trajectories, of which those from the same noise separate at the first step."""
    roots = yield from propagator.start(range(noises), [0] * noises, score=False)
    particles = roots.rows(torch.arange(count) % noises)
    for step in range(1, propagator.dynamics.transitions + 1):
        particles = yield from propagator.advance(particles, step, range(count), [0] * count, score=False)
    return (yield from propagator.denoise(particles)).clean


def _answering(model: FlowModel, condition: Any) -> Callable[[Request], Tensor]:
    """Return a function that answers requests for velocities; rewards, which are not used here, are 0."""

    def answer(request: Request) -> Tensor:
        match request:
            case Velocity(x, t):
                return model.velocity(x, t, [condition] * len(x))
            case Reward(x0):
                return torch.zeros(len(x0), dtype=torch.float64)
        raise TypeError(f"expected a request for velocities or rewards, got {request!r}")

    return answer
