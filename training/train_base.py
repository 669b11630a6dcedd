"""Train the base flow model of scenes: python training/train_base.py --minutes 240

Flow matching on the linear interpolant: regress eps - x0 at x_t = (1 - t) x0 + t eps, with t logit-normal and leaning
towards noise, where the counts are decided; every tenth caption is dropped for classifier-free guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latents import draw_sheet, encoded
from loop import MODEL_WEIGHTS, Loop, optimizers, options, ship
from rollflow.models.loading import load_weights
from rollflow.models.scenes.grammar import VOCABULARY_SIZE
from rollflow.models.scenes.model import ScenesBase
from rollflow.models.scenes.networks import DiT

POOL = 49_152
BATCH = 128


def main() -> None:
    given = options("base", 240, __doc__)
    device = given.device
    pool = encoded(POOL, given.seed, device, given.out / "latents.pt")
    network = DiT(VOCABULARY_SIZE).to(device)
    if given.from_package:
        load_weights(network, MODEL_WEIGHTS / "base.safetensors", device)
        network.requires_grad_(True)
    compiled = torch.compile(network)

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(given.seed + step)
        rows = torch.randint(POOL, (BATCH,), generator=generator).to(device)
        x0, tokens = pool.x0[rows], pool.tokens[rows]
        noise = torch.randn(x0.shape, generator=generator).to(device)
        t = torch.sigmoid(0.3 + 1.1 * torch.randn(BATCH, generator=generator)).to(device)
        dropped = (torch.rand(BATCH, 1, generator=generator) < 0.1).to(device)
        x_t = torch.lerp(x0, noise, t[:, None, None, None])
        velocity = compiled(x_t, t, tokens.masked_fill(dropped, DiT.NULL))
        return (velocity - (noise - x0)).square().mean()

    def sheet(average: nn.Module, step: int) -> None:
        assert isinstance(average, DiT)
        draw_sheet(
            average, given.out / "sheet.png", device, steps=20, scale=ScenesBase.guidance, times=(1.0, 0.75, 0.5)
        )
        ship(average, given.out / "base.safetensors", {})

    average = Loop(given, network, optimizers(network, 1e-3, muon_lr=2e-3), loss, sheet, report_seconds=480).run()
    ship(average, MODEL_WEIGHTS / "base.safetensors", {"seed": str(given.seed), "minutes": str(given.minutes)})


if __name__ == "__main__":
    main()
