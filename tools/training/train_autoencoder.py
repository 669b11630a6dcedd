"""Train the autoencoder of the scenes model: python tools/training/train_autoencoder.py --minutes 15"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import data
from loop import MODEL_WEIGHTS, Loop, channels_last, optimizers, options, ship
from rollflow.models.scenes.networks import Autoencoder

POOL = 16_384
BATCH = 32
LATENT_NOISE = 0.1


def normalised(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 to [-1, 1]."""
    return pixels.to(device).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def main() -> None:
    given = options("autoencoder", 15, __doc__)
    rng = np.random.default_rng(given.seed)
    pool = data.pixels_of([data.render(data.draw_caption(rng), rng) for _ in range(POOL)])
    network = channels_last(Autoencoder().to(given.device))

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(given.seed + step)
        x = normalised(pool[torch.randint(POOL, (BATCH,), generator=generator)], given.device)
        z: Tensor = network.encoder(x)
        y: Tensor = network.decoder(z + LATENT_NOISE * torch.randn(z.shape, generator=generator).to(z))
        edges = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean() + (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
        return (y - x).square().mean() + 0.1 * (y - x).abs().mean() + 0.1 * edges + 1e-4 * z.square().mean()

    held_out = data.pixels_of([data.render(data.draw_caption(rng, held_out=True), rng) for _ in range(256)])

    def sheet(average: nn.Module, step: int) -> None:
        assert isinstance(average, Autoencoder)
        x = normalised(held_out, given.device)
        with torch.no_grad():
            y = average.decoder(average.encoder(x))
        print(f"  held-out MSE {(y - x).square().mean():.5f} (pictures in [-1, 1])", flush=True)
        both = torch.cat([x[:16], y[:16]]).add(1).mul(127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        data.sheet(both, 16).save(given.out / "sheet.png")

    average = Loop(given, network, optimizers(network, 2e-3), loss, sheet, report_seconds=120).run()
    assert isinstance(average, Autoencoder)
    with torch.no_grad():
        z = torch.cat([average.encoder(normalised(part, given.device)) for part in torch.split(pool[:4096], 256)])
    average.mean.copy_(z.mean((0, 2, 3))[:, None, None])
    average.std.copy_(z.std((0, 2, 3))[:, None, None])
    ship(average, MODEL_WEIGHTS / "autoencoder.safetensors", {"seed": str(given.seed), "minutes": str(given.minutes)})


if __name__ == "__main__":
    main()
