"""How far apart samples come to lie that set out from one noise: what a search has to choose from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from rollflow.bench.intervals import Interval, interval
from rollflow.errors import RollflowError, unknown
from rollflow.models.base import FlowModel
from rollflow.models.loading import load_weights
from rollflow.particles.rng import Noise
from rollflow.requests import Asking, Request, Reward, Velocity, drive
from rollflow.rewards.scenes.detectors import WEIGHTS, ConvNeXtDetector
from rollflow.rewards.scenes.scenes import JudgeReward
from rollflow.sampler import Dynamics, Sampler
from rollflow.search.propagator import Propagator

SampleDistance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
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


def lpips_distance() -> SampleDistance:
    """LPIPS with AlexNet (arXiv 1801.03924), by the package ``lpips``; of films, the mean over frames.

    Raises:
        RollflowError: If the package is not installed.
    """
    try:
        import lpips
    except ImportError:
        raise RollflowError("the distance 'lpips' needs the package of that name; pip install lpips") from None
    network = lpips.LPIPS(net="alex", verbose=False).eval()

    def distance(x: Tensor, y: Tensor) -> Tensor:
        frames = [2 * samples.float().flatten(0, -4) - 1 for samples in (x, y)]
        return cast(Tensor, network(*frames)).double().view(len(x), -1).mean(1)

    return distance


DISTANCES: dict[str, Callable[[], SampleDistance]] = {"scenes": scenes_distance, "lpips": lpips_distance}
"""By name."""


def check_distance(name: str) -> None:
    """Refuse a distance that cannot be had, without loading anything.

    Raises:
        UnknownName: If there is none of that name.
        RollflowError: If its package is not installed.
    """
    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    if name == "lpips" and "lpips" not in sys.modules and find_spec("lpips") is None:
        raise RollflowError("the distance 'lpips' needs the package of that name; pip install lpips")


def distance_of(name: str) -> SampleDistance:
    """A distance by its name.

    Raises:
        UnknownName: If there is none of that name.
        RollflowError: If it cannot be had.
    """
    check_distance(name)
    return DISTANCES[name]()


def mean_pairwise(samples: Tensor, distance: SampleDistance) -> float:
    """Mean distance of the pairs of different samples (n, ...), n of 2 or more."""
    rows = (distance(one.expand_as(later), later) for one, later in _pairs(samples))
    return float(torch.cat(list(rows)).mean())


def _pairs(samples: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every sample, and those after it."""
    return ((samples[i], samples[i + 1 :]) for i in range(len(samples) - 1))


class Diversity(NamedTuple):
    """Mean pairwise distance of samples of one noise.

    Args:
        mean: Over prompts, with its interval.
        of: By prompt.
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
    """What the kernel's noise alone makes of one initial noise: table 1 of arXiv 2503.19385 (there LPIPS-MPD, on FLUX).

    For every prompt one noise is drawn, the same for all samplers of a seed, and trajectories that share nothing else.
    As many noises as trajectories tell what there is to reach.

    Args:
        model: Decodes to what ``distance`` takes.
        prompts: Different ones.
        sampler: How they move; what it returns, estimates or finished samples, is compared.
        distance: ``scenes_distance()`` for the embedded model, ``lpips_distance()`` for others.
        trajectories: A prompt, 2 or more, all in one call of the model.
        seed: Of all noise.
        noises: That they set out from in turn, 1 to ``trajectories``.

    Cost: that of ``diversity_nfe`` a prompt.

    Raises:
        RollflowError: On fewer than two trajectories.
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
    """The same of one prompt."""
    if trajectories < 2:
        raise RollflowError(f"distances need at least 2 trajectories, not {trajectories}")
    propagator = Propagator(sampler.bind(model), Noise(seed, 0, model.shape, model.dtype), 0, model.origin)
    clean = drive(_samples(propagator, trajectories, noises), _answering(model, model.encode(prompt)))
    return mean_pairwise(model.decode(clean), distance)


def diversity_nfe(dynamics: Dynamics, trajectories: int, noises: int = 1) -> int:
    """NFE of the diversity of one prompt: one evaluation of each noise, and the ways from there."""
    return noises + trajectories * (dynamics.transitions * dynamics.propagate_nfe + dynamics.finish_nfe)


def _samples(propagator: Propagator, count: int, noises: int) -> Asking[Tensor]:
    """Samples of ``count`` trajectories, of which those of one noise part at the first step."""
    roots = yield from propagator.start(range(noises), [0] * noises, score=False)
    particles = roots.rows(torch.arange(count) % noises)
    for step in range(1, propagator.dynamics.transitions + 1):
        particles = yield from propagator.advance(particles, step, range(count), [0] * count, score=False)
    return (yield from propagator.denoise(particles)).clean


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
