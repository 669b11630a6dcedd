"""Distil the turbo model from the base: python tools/training/train_turbo.py --minutes 60

The base's guided ODE is solved from noise to its end once for every caption of a pool. From t = 0.78 down, the student
learns, at any point of such a path, the straight velocity to the path's end, (x_t - x_0) / t. This is the consistency
function of the base's probability-flow ODE (Song et al. 2023, arXiv 2303.01469), regressed on whole paths instead of
bootstrapped, with the guidance included. Above that, the student learns the path's own velocity, as piecewise rectified
flows do (Yan et al. 2024, arXiv 2405.07510): at those times a network of this size cannot predict the end of a path,
and wrong predictions would lead it astray. The paths have the base's own marginals at every t, so that states of an SDE
kernel are familiar to the student too; those of a reflow (straight lines between the ends) would not be.

Only AdamW is used, since Muon computes in bfloat16, which takes ten seconds per step on a CPU without instructions for
it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import data
from latents import FEW, draw_sheet, guided
from loop import MODEL_WEIGHTS, Loop, optimizers, options, ship
from rollflow.dynamics.grids import Shifted
from rollflow.models.loading import load_weights
from rollflow.models.scenes.grammar import VOCABULARY_SIZE
from rollflow.models.scenes.model import ScenesBase
from rollflow.models.scenes.networks import DiT

POOL = 24_576
PART = 512  # paths of one file; the last is kept aside
STEPS = 10
FOLLOWED = 3
"""Number of steps in which the student follows the base's path; after them (t = 0.78) it predicts the path's end."""

BATCH = 128


class Paths(NamedTuple):
    """Paths of the base: states (N, STEPS + 1, 16, 8, 8) in float16, from noise to the end, and tokens (N, 6)."""

    states: Tensor
    tokens: Tensor


def times() -> Tensor:
    """Return the times (STEPS + 1,) of the states, closer together near noise, where guided paths bend most."""
    return Shifted(1.5)(STEPS).float()


def _rows(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1)."""
    return values[:, None, None, None]


@torch.no_grad()
def paths(seed: int, device: torch.device, folder: Path) -> Paths:
    """Compute the path of every caption of the pool, in parts of one file each, so that this can be resumed."""
    folder.mkdir(exist_ok=True)
    base = DiT(VOCABULARY_SIZE)
    load_weights(base, MODEL_WEIGHTS / "base.safetensors", device)
    compiled, grid = torch.compile(base), times().tolist()
    parts = []
    for part in range(POOL // PART):
        file = folder / f"{part:03}.pt"
        if not file.exists():
            rng = np.random.default_rng([seed, part])
            tokens = torch.tensor([data.draw_caption(rng, few=FEW).tokens() for _ in range(PART)], device=device)
            x = torch.randn(PART, 16, 8, 8, generator=torch.Generator().manual_seed(1000 * seed + part)).to(device)
            states = [x]
            for t, s in itertools.pairwise(grid):
                halves = zip(torch.split(x, BATCH), torch.split(tokens, BATCH), strict=True)
                v = [
                    guided(compiled, y, torch.full((BATCH,), t, device=device), k, ScenesBase.guidance)
                    for y, k in halves
                ]
                x = x + (s - t) * torch.cat(v)
                states.append(x)
            torch.save((torch.stack(states, 1).half().cpu(), tokens.cpu()), file.with_suffix(".tmp"))
            os.replace(file.with_suffix(".tmp"), file)
            print(f"  paths {PART * (part + 1)} of {POOL}", flush=True)
        parts.append(Paths(*torch.load(file, weights_only=True)))
    return Paths(*(torch.cat(tensors).to(device) for tensors in zip(*parts, strict=True)))


def main() -> None:
    given = options("turbo", 60, __doc__)
    device = given.device
    pool = paths(given.seed, device, given.out / "paths")
    grid = times().to(device)
    network = DiT(VOCABULARY_SIZE)
    start = "turbo" if given.from_package else "base"
    load_weights(network, MODEL_WEIGHTS / f"{start}.safetensors", device)
    network.requires_grad_(True)
    compiled = torch.compile(network)

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(given.seed + step)
        rows = torch.randint(POOL - PART, (BATCH,), generator=generator).to(device)
        leg = torch.randint(STEPS, (BATCH,), generator=generator).to(device)
        along = torch.rand(BATCH, generator=generator).to(device)
        t = torch.lerp(grid[leg], grid[leg + 1], along).clamp_min(0.02)
        here, there = pool.states[rows, leg].float(), pool.states[rows, leg + 1].float()
        x_t = torch.lerp(here, there, _rows(along))
        along_leg = (there - here) / _rows(grid[leg + 1] - grid[leg])
        to_end = (x_t - pool.states[rows, -1].float()) / _rows(t)
        target = torch.where(_rows(leg) < FOLLOWED, along_leg, to_end)
        residual = _rows(t) * (compiled(x_t, t, pool.tokens[rows]) - target)
        weight = 1 / (t + 0.1)
        mean: Tensor = (weight * residual.square().mean((1, 2, 3))).mean()
        return mean

    @torch.no_grad()
    def error(network: DiT, part: slice) -> float:
        """Return the mean squared error of the first clean estimate that should be the path's end."""
        x, t, end = pool.states[part, FOLLOWED].float(), grid[FOLLOWED], pool.states[part, -1].float()
        return float((x - t * network(x, t.expand(len(x)), pool.tokens[part]) - end).square().mean())

    def sheet(average: nn.Module, step: int) -> None:
        assert isinstance(average, DiT)
        trained, kept_aside = (error(average, part) for part in (slice(PART), slice(POOL - PART, POOL)))
        at = float(grid[FOLLOWED])
        print(f"  error at t = {at:.2f}: {trained:.4f} on paths trained on, {kept_aside:.4f} on others", flush=True)
        draw_sheet(average, given.out / "sheet.png", device, steps=10, scale=1.0, times=(1.0, 0.7, 0.5))

    average = Loop(given, network, optimizers(network, 2e-4), loss, sheet, report_seconds=240).run()
    ship(average, MODEL_WEIGHTS / "turbo.safetensors", {"seed": str(given.seed), "minutes": str(given.minutes)})


if __name__ == "__main__":
    main()
