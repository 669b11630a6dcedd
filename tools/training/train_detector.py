"""Train a detector of scenes: python tools/training/train_detector.py {detector,judge} --minutes 8

Half of each batch consists of newly rendered scenes, a quarter of decoded latents with noise, and a quarter of clean
estimates of the base model on the way to the scene, since searches rarely score finished pictures. The detector is
trained with noise and blur, the judge with other colours and other seeds. At the end, the log-odds are calibrated on
held-out scenes of all three sorts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import data
from latents import autoencoder, guided
from loop import MODEL_WEIGHTS, REWARD_WEIGHTS, Loop, channels_last, optimizers, options, ship
from rollflow.models.loading import load_weights
from rollflow.models.scenes.grammar import KINDS, VOCABULARY_SIZE
from rollflow.models.scenes.model import ScenesBase
from rollflow.models.scenes.networks import DiT
from rollflow.rewards.scenes.detectors import ConvNeXtDetector, PyramidDetector, SceneDetector
from rollflow.rewards.scenes.scenes import count_probability

POOL = 4_096
HELD_OUT = 1_024
BATCH = 64
SORTS = ("rendered", "disturbed", "estimated")


@dataclass(frozen=True)
class Pictures:
    """Pictures of the same scenes in three sorts, and the positions of the objects.

    Args:
        pixels: Pixels (N, 3, 64, 64) uint8 of each sort.
        centres: Scene, kind, and x and y in pixels of each object, (objects, 4).
    """

    pixels: dict[str, Tensor]
    centres: Tensor

    def counts(self) -> Tensor:
        """Number (N, kinds) of objects in each scene."""
        counts = torch.zeros(len(self.pixels["rendered"]), len(KINDS), dtype=torch.long)
        scene, kind = self.centres[:, 0].long(), self.centres[:, 1].long()
        return counts.index_put_((scene, kind), torch.ones(len(scene), dtype=torch.long), accumulate=True)


def rendered(count: int, rng: np.random.Generator, *, held_out: bool = False) -> tuple[list[data.Scene], Tensor]:
    """Render scenes; return them with the centres (objects, 4) of their objects: picture, kind, x, y."""
    scenes = [data.render(data.draw_caption(rng, held_out=held_out), rng) for _ in range(count)]
    rows = [
        (i, kind, *centre)
        for i, scene in enumerate(scenes)
        for kind, centre in zip(scene.kinds, scene.centres, strict=True)
    ]
    return scenes, torch.tensor(rows).float()


@torch.no_grad()
def pictures(count: int, seed: int, device: torch.device, *, held_out: bool, cache: Path) -> Pictures:
    """Render scenes and make their other sorts, once."""
    if cache.exists():
        return Pictures(**torch.load(cache, weights_only=True))
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    scenes, centres = rendered(count, rng, held_out=held_out)
    coder = autoencoder(device)
    base = DiT(VOCABULARY_SIZE)
    load_weights(base, MODEL_WEIGHTS / "base.safetensors", device)
    parts: dict[str, list[Tensor]] = {sort: [] for sort in SORTS}
    for start in range(0, count, 256):
        some = scenes[start : start + 256]
        pixels = data.pixels_of(some)
        tokens = torch.tensor([scene.caption.tokens() for scene in some], device=device)
        z = coder.encode(pixels.to(device).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last))
        noise = torch.randn(z.shape, generator=generator).to(z)
        amount, mix = (torch.rand(len(z), 1, 1, 1, generator=generator).to(z) for _ in range(2))
        blurred = F.avg_pool2d(z, 3, 1, 1, count_include_pad=False)
        disturbed = torch.lerp(z, blurred, 0.6 * mix) + 0.6 * amount * noise
        t = 0.75 * torch.rand(len(z), generator=generator).to(z)
        x_t = torch.lerp(z, noise, t[:, None, None, None])
        estimated = x_t - t[:, None, None, None] * guided(base, x_t, t, tokens, ScenesBase.guidance)
        parts["rendered"].append(pixels)
        for sort, latent in (("disturbed", disturbed), ("estimated", estimated)):
            parts[sort].append(coder.decode(latent).add(1).mul(127.5).round().clamp(0, 255).byte().cpu())
    made = Pictures({sort: torch.cat(part).contiguous() for sort, part in parts.items()}, centres)
    torch.save({"pixels": made.pixels, "centres": made.centres}, cache)
    return made


def targets(centres: Tensor, pictures: int, side: int) -> Tensor:
    """Make heat maps (pictures, kinds, side, side): 1 in the cell of each centre, a Gaussian of 0.6 cells around it."""
    heat = torch.zeros(pictures, len(KINDS), side, side)
    cells = torch.arange(side) + 0.5
    for row, kind, x, y in centres.tolist():
        u, v = x * side / data.SIDE, y * side / data.SIDE
        bump = torch.exp(-((cells - v)[:, None] ** 2 + (cells - u)[None] ** 2) / (2 * 0.6**2))
        bump[min(int(v), side - 1), min(int(u), side - 1)] = 1
        plane = heat[int(row), int(kind)]
        torch.maximum(plane, bump, out=plane)
    return heat


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the penalty-reduced focal loss of CenterNet per object (Zhou et al. 2019, arXiv 1904.07850, eq. 1)."""
    p = logits.sigmoid()
    hit = target == 1
    found = -F.logsigmoid(logits) * (1 - p) ** 2 * hit
    empty = -F.logsigmoid(-logits) * p**2 * (1 - target) ** 4
    return (found + empty).sum() / hit.sum()


def noise_and_blur(x: Tensor, generator: torch.Generator) -> Tensor:
    """Augment pictures for the detector, by noise and blur."""
    blur, noise = (torch.rand(len(x), 1, 1, 1, generator=generator) for _ in range(2))
    x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), blur)
    return x + 0.1 * noise * torch.randn(x.shape, generator=generator)


def colours(x: Tensor, generator: torch.Generator) -> Tensor:
    """Augment pictures for the judge, by contrast and by the brightness of each colour."""
    gain = 0.8 + 0.4 * torch.rand(len(x), 1, 1, 1, generator=generator)
    return x * gain + 0.1 * torch.randn(len(x), 3, 1, 1, generator=generator)


@torch.no_grad()
def accuracy(network: SceneDetector, held_out: Pictures, sort: str) -> float:
    """Return the share of pictures in which the counts of all kinds are right."""
    found = torch.cat([network.peaks(part.float() / 255).counts() for part in torch.split(held_out.pixels[sort], 128)])
    return float((found == held_out.counts()).all(1).float().mean())


def calibrate(network: SceneDetector, held_out: Pictures) -> None:
    """Fit ``scale`` and ``offset`` by the likelihood of the counts of the kinds present, over all sorts."""
    with torch.no_grad():
        raw = torch.cat(
            [
                network.peaks(part.float() / 255).logits
                for sort in SORTS
                for part in torch.split(held_out.pixels[sort], 128)
            ]
        )
    counts = held_out.counts().repeat(len(SORTS), 1)
    present = counts > 0
    log_scale, offset = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([log_scale, offset], lr=0.05)
    for _ in range(200):
        law = count_probability((log_scale.exp() * raw[present] + offset).sigmoid(), counts[present])
        loss = -law.clamp_min(1e-12).log().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    network.scale.fill_(log_scale.exp().item())
    network.offset.fill_(offset.item())
    print(f"calibration: {network.scale:.3f} x logit + {network.offset:.3f}, log-likelihood {-loss:.4f}", flush=True)


def main() -> None:
    given = options("detector", 8, __doc__, ("detector", "judge"))
    judge = given.which == "judge"
    network: SceneDetector = channels_last(ConvNeXtDetector() if judge else PyramidDetector())
    augment = colours if judge else noise_and_blur
    seed = given.seed + (1000 if judge else 0)
    cpu = torch.device("cpu")
    pool = pictures(POOL, seed, cpu, held_out=False, cache=given.out / "pictures.pt")
    first_of = torch.searchsorted(pool.centres[:, 0].contiguous(), torch.arange(POOL + 1).float())
    held_out = pictures(HELD_OUT, seed + 1, cpu, held_out=True, cache=given.out / "held_out.pt")

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + step)
        scenes, fresh = rendered(BATCH // 2, np.random.default_rng([seed, step]))
        rows = torch.randperm(POOL, generator=generator)[: BATCH // 2]
        disturbed, estimated = rows.chunk(2)
        x = torch.cat(
            [data.pixels_of(scenes), pool.pixels["disturbed"][disturbed], pool.pixels["estimated"][estimated]]
        )
        pooled = torch.cat([pool.centres[first_of[row] : first_of[row + 1]] for row in rows])
        pooled[:, 0] = torch.repeat_interleave(torch.arange(BATCH // 2) + BATCH // 2, first_of.diff()[rows]).float()
        heat = network.heat(augment(x.float() / 255, generator).contiguous(memory_format=torch.channels_last))
        return focal(heat, targets(torch.cat([fresh, pooled]), BATCH, heat.shape[-1]))

    def sheet(average: nn.Module, step: int) -> None:
        assert isinstance(average, SceneDetector)
        average.eval()
        shares = {sort: round(accuracy(average, held_out, sort), 4) for sort in SORTS}
        print("  all counts right:", shares, flush=True)
        shown = torch.cat([held_out.pixels[sort][:16] for sort in SORTS]).permute(0, 2, 3, 1).numpy()
        data.sheet(shown, 16).save(given.out / "sheet.png")

    average = Loop(given, network, optimizers(network, 2e-3), loss, sheet, report_seconds=90, ema=0.99).run()
    assert isinstance(average, SceneDetector)
    average.eval()
    calibrate(average, held_out)
    scores = {f"all counts right, {sort}": f"{accuracy(average, held_out, sort):.4f}" for sort in SORTS}
    print(scores)
    metadata = {"seed": str(seed), "minutes": str(given.minutes), **scores}
    ship(average, REWARD_WEIGHTS / f"{given.which}.safetensors", metadata)


if __name__ == "__main__":
    main()
