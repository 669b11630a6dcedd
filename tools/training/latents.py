"""Training data of the flow models: rendered scenes as latents, with the tokens of their captions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import data
from loop import MODEL_WEIGHTS, channels_last
from rollflow.models.loading import load_weights
from rollflow.models.scenes.grammar import Caption
from rollflow.models.scenes.networks import Autoencoder, DiT

FEW = 0.4
"""Share of the training scenes with at most four objects, from which counting is learnt first."""

SPACING = 1.15
"""Distance of sprites in training scenes, in sides: objects that never touch are learnt sooner as separate objects."""


class Latents(NamedTuple):
    """x0 (N, 16, 8, 8) whitened latents, tokens (N, 6), layout (N, 8, 8) as ``data.layout_of``."""

    x0: Tensor
    tokens: Tensor
    layout: Tensor


def autoencoder(device: torch.device) -> Autoencoder:
    """Load the packaged autoencoder, frozen."""
    network = Autoencoder()
    load_weights(network, MODEL_WEIGHTS / "autoencoder.safetensors", device)
    return channels_last(network)


def encoded(count: int, seed: int, device: torch.device, cache: Path) -> Latents:
    """``count`` training scenes, rendered and encoded once and kept in ``cache``."""
    if cache.exists():
        return Latents(**torch.load(cache, map_location=device, weights_only=True))
    rng = np.random.default_rng(seed)
    network = autoencoder(device)
    latents, tokens, layouts = [], [], []
    for start in range(0, count, 512):
        scenes = [data.render(data.draw_caption(rng, few=FEW), rng, SPACING) for _ in range(min(512, count - start))]
        pixels = data.pixels_of(scenes).to(device)
        latents.append(network.encode(pixels.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)))
        tokens.append(torch.tensor([scene.caption.tokens() for scene in scenes], device=device))
        layouts.append(torch.stack([data.layout_of(scene) for scene in scenes]).to(device))
    made = Latents(torch.cat(latents).contiguous(), torch.cat(tokens), torch.cat(layouts))
    torch.save(made._asdict(), cache)
    return made


@torch.no_grad()
def guided(network: Callable[..., Tensor], x: Tensor, t: Tensor, tokens: Tensor, scale: float) -> Tensor:
    """Compute the velocity with classifier-free guidance; without guidance if ``scale`` is 1."""
    if scale == 1:
        return network(x, t, tokens)
    both = network(x.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([tokens, torch.zeros_like(tokens)]))
    conditional, unconditional = both.chunk(2)
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def sample(network: DiT, noise: Tensor, tokens: Tensor, steps: int, scale: float) -> Tensor:
    """Sample latents by the Euler ODE."""
    x, times = noise, torch.linspace(1, 0, steps + 1).tolist()
    for t, s in itertools.pairwise(times):
        x = x + (s - t) * guided(network, x, torch.full((len(x),), t, device=x.device), tokens, scale)
    return x


def draw_sheet(
    network: DiT, path: Path, device: torch.device, steps: int, scale: float, times: tuple[float, ...]
) -> None:
    """Draw samples of 16 held-out captions (first row), and below them their clean estimates at ``times``."""
    rng = np.random.default_rng(1)
    captions: list[Caption] = [data.draw_caption(rng, held_out=True) for _ in range(16)]
    tokens = torch.tensor([caption.tokens() for caption in captions], device=device)
    x = torch.randn(16, 16, 8, 8, generator=torch.Generator().manual_seed(1)).to(device)
    rows = [sample(network, x, tokens, steps, scale)]
    grid = torch.linspace(1, 0, steps + 1).tolist()
    for t, s in itertools.pairwise(grid):
        v = guided(network, x, torch.full((16,), t, device=device), tokens, scale)
        if any(abs(t - wanted) < 1e-6 for wanted in times):
            rows.append(x - t * v)
        x = x + (s - t) * v
    pixels = autoencoder(device).decode(torch.cat(rows)).add(1).mul(127.5).clamp(0, 255).byte()
    data.sheet(pixels.permute(0, 2, 3, 1).cpu().numpy(), 16).save(path)
    path.with_suffix(".txt").write_text("\n".join(map(str, captions)))
