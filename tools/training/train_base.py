"""Train the base flow model of scenes: python tools/training/train_base.py --minutes 240

Flow matching on the linear interpolant: regress eps - x0 at x_t = (1 - t) x0 + t eps, with t logit-normal and leaning
towards noise, where the counts are decided; every tenth caption is dropped for classifier-free guidance.

In addition, a linear head on the middle block predicts the kind of the object centred in each cell, by cross-entropy
against the rendered scene. It is discarded after training. With it, the network learns a representation of the objects
long before the velocity alone would require one (REPA, arXiv 2410.06940, with the true objects in place of another
network's features).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latents import draw_sheet, encoded
from loop import MODEL_WEIGHTS, Loop, optimizers, options, ship
from rollflow.models.loading import load_weights
from rollflow.models.scenes.grammar import KINDS, VOCABULARY_SIZE
from rollflow.models.scenes.model import ScenesBase
from rollflow.models.scenes.networks import TOKEN_SLOTS, DiT

POOL = 65_536
BATCH = 128
LAYOUT_BLOCK = 3
LAYOUT_WEIGHT = 0.5


class Trained(nn.Module):
    """The network with its layout head; returns the velocity, and logits (B, 1 + kinds, 8, 8) of ``data.layout_of``."""

    def __init__(self, network: DiT) -> None:
        super().__init__()
        self.network = network
        self.layout = nn.Linear(network.width, 4 * (1 + len(KINDS)))
        self._middle: Tensor
        network.blocks[LAYOUT_BLOCK].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, given: object, hidden: Tensor) -> None:
        self._middle = hidden

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        velocity = self.network(x, t, tokens)
        hidden = F.layer_norm(self._middle[:, TOKEN_SLOTS:], (self.network.width,))
        logits = torch.unflatten(self.layout(hidden).transpose(1, 2), 2, (4, 4))
        return velocity, F.pixel_shuffle(logits, 2)


def main() -> None:
    given = options("base", 240, __doc__)
    device = given.device
    pool = encoded(POOL, given.seed, device, given.out / "latents.pt")
    network = DiT(VOCABULARY_SIZE)
    if given.from_package:
        load_weights(network, MODEL_WEIGHTS / "base.safetensors", device)
    trained = Trained(network).to(device).requires_grad_(True)
    compiled = torch.compile(trained)

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(given.seed + step)
        rows = torch.randint(POOL, (BATCH,), generator=generator).to(device)
        x0, tokens = pool.x0[rows], pool.tokens[rows]
        noise = torch.randn(x0.shape, generator=generator).to(device)
        t = torch.sigmoid(0.3 + 1.1 * torch.randn(BATCH, generator=generator)).to(device)
        dropped = (torch.rand(BATCH, 1, generator=generator) < 0.1).to(device)
        x_t = torch.lerp(x0, noise, t[:, None, None, None])
        velocity, layout = compiled(x_t, t, tokens.masked_fill(dropped, DiT.NULL))
        flow_matching: Tensor = (velocity - (noise - x0)).square().mean()
        return flow_matching + LAYOUT_WEIGHT * F.cross_entropy(layout, pool.layout[rows].long())

    def sheet(average: nn.Module, step: int) -> None:
        base = cast(Trained, average).network
        draw_sheet(base, given.out / "sheet.png", device, steps=20, scale=ScenesBase.guidance, times=(1.0, 0.75, 0.5))
        ship(base, given.out / "base.safetensors", {})

    loop = Loop(given, trained, optimizers(trained, 1e-3, muon_lr=2e-3), loss, sheet, report_seconds=480)
    average = cast(Trained, loop.run()).network
    ship(average, MODEL_WEIGHTS / "base.safetensors", {"seed": str(given.seed), "minutes": str(given.minutes)})


if __name__ == "__main__":
    main()
