"""The two networks of the embedded models: a convolutional autoencoder and a text-conditional DiT."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 16
LATENT_SIDE = 8
TOKEN_SLOTS = 6


class _Residual(nn.Module):
    """Residual block: x + conv(silu(norm(conv(silu(norm(x)))))), with as many channels as before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.body(x))


class Autoencoder(nn.Module):
    """Maps pictures (B, 3, 64, 64) in [-1, 1] to latents (B, 16, 8, 8), 8 times smaller on each side, and back.

    Pixel unshuffle and shuffle at both ends avoid convolutions at 64 x 64. Latents are whitened per channel by ``mean``
    and ``std``, measured once after training, so that the flow model sees unit variance.

    Args:
        widths: Channels at 32 x 32, 16 x 16 and 8 x 8.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: tuple[int, int, int] = (48, 96, 160)) -> None:
        super().__init__()
        a, b, c = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, a, 3, padding=1),
            _Residual(a),
            nn.Conv2d(a, b, 3, stride=2, padding=1),
            _Residual(b),
            nn.Conv2d(b, c, 3, stride=2, padding=1),
            _Residual(c),
            nn.GroupNorm(8, c),
            nn.SiLU(inplace=True),
            nn.Conv2d(c, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, c, 3, padding=1),
            _Residual(c),
            nn.Conv2d(c, 4 * b, 1),
            nn.PixelShuffle(2),
            _Residual(b),
            nn.Conv2d(b, 4 * a, 1),
            nn.PixelShuffle(2),
            _Residual(a),
            nn.GroupNorm(8, a),
            nn.SiLU(inplace=True),
            nn.Conv2d(a, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("mean", torch.zeros(LATENT_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(LATENT_CHANNELS, 1, 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pictures (B, 3, 64, 64) in [-1, 1] as whitened latents (B, 16, 8, 8)."""
        return (cast(Tensor, self.encoder(pixels)) - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        """Decode whitened latents (B, 16, 8, 8) to pictures (B, 3, 64, 64), about in [-1, 1], not clamped."""
        first = cast(nn.Conv2d, self.decoder[0]).weight
        return cast(Tensor, self.decoder((latents * self.std + self.mean).to(first.dtype))).to(latents)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _copied(x: Tensor, copies: int) -> Tensor:
    return x if copies == 1 else torch.cat([x] * copies)  # keeps channels last, as repeat does not


class _Block(nn.Module):
    """Pre-norm transformer block with query-key normalisation and adaLN-single modulation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.query_scale = nn.Parameter(torch.full((heads, 1, 1), 2.0))
        self.modulation = nn.Parameter(torch.zeros(6, width))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        modulation = (conditioning + self.modulation).to(x).unsqueeze(2)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(1)
        h = _modulate(F.layer_norm(x, (width,)), shift1, scale1)
        q, k, v = self.qkv(h).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q = F.rms_norm(q, (width // self.heads,)) * self.query_scale.to(q)
        k = F.rms_norm(k, (width // self.heads,))
        h = F.scaled_dot_product_attention(q, k, v)
        x = x + gate1 * self.out(h.transpose(1, 2).reshape(batch, tokens, width))
        h = _modulate(F.layer_norm(x, (width,)), shift2, scale2)
        # In bfloat16 both forms of GELU are rounded to nearly the same, and the exact one takes a fifth of the time.
        form = "none" if h.dtype == torch.bfloat16 else "tanh"
        return cast(Tensor, x + gate2 * self.down(F.gelu(self.up(h), approximate=form)))


class DiT(nn.Module):
    """Velocity of the latent flow: u(x_t, t, tokens), where t = 1 is noise, for the linear interpolant.

    A transformer over 2 x 2 patches (16 tokens after the six caption tokens) between a convolutional stem and head at
    the full 8 x 8, which a skip connects as in U-ViT (Bao et al. 2022, arXiv 2209.12152). Compared with one token per
    latent pixel, the patches make a call four times cheaper on a CPU, and the convolutions preserve detail. The mean of
    the caption tokens is added to the time embedding. All blocks share the modulation up to a learned offset each
    (adaLN-single of PixArt-alpha, Chen et al. 2023, arXiv 2310.00426). ``NULL`` in every slot is the unconditional
    prompt of classifier-free guidance.

    Args:
        vocabulary: Number of token ids; id 0 is the null token.
        width: Width of the transformer.
        depth: Number of transformer blocks.
        heads: Attention heads per block.
        channels: Channels of the convolutional stem and head.
    """

    NULL = 0

    def __init__(self, vocabulary: int, width: int = 288, depth: int = 7, heads: int = 6, channels: int = 128) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(nn.Conv2d(LATENT_CHANNELS, channels, 3, padding=1), _Residual(channels))
        self.patch = nn.Conv2d(channels, width, 2, stride=2)
        self.positions = nn.Parameter(0.02 * torch.randn(TOKEN_SLOTS + LATENT_SIDE**2 // 4, width))
        self.tokens = nn.Embedding(vocabulary, width)
        self.time = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.final_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.unpatch = nn.Linear(width, 4 * channels)
        self.head = nn.Sequential(
            _Residual(channels),
            nn.GroupNorm(8, channels),
            nn.SiLU(inplace=True),
            nn.Conv2d(channels, LATENT_CHANNELS, 3, padding=1),
        )
        nn.init.normal_(self.tokens.weight, std=0.5)
        for layer in (self.modulation[1], self.final_modulation[1], self.head[3]):
            nn.init.zeros_(cast(nn.Linear, layer).weight)
            nn.init.zeros_(cast(Tensor, layer.bias))
        with torch.no_grad():  # blocks start at half strength, not as the identity: faster training at this size
            for block in self.blocks:
                cast(_Block, block).modulation[[2, 5]] = 0.5

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Compute the velocities (k B, 16, 8, 8) for k captions of every latent.

        Args:
            x: Latents (B, 16, 8, 8).
            t: Times (B,).
            tokens: Caption tokens (k B, 6), int64: one caption of each latent, then the next of each.
        """
        dtype, copies = self.patch.weight.dtype, len(tokens) // len(x)
        frequencies = torch.exp(torch.linspace(0, math.log(1000.0), 64, device=x.device))
        angles = t.float()[:, None] * frequencies
        text = self.tokens(tokens)
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1).to(dtype))
        conditioning = _copied(time, copies) + text.mean(1)
        modulation = self.modulation(conditioning).view(-1, 6, self.width)
        detail = cast(Tensor, self.stem(x.to(dtype)))
        patches = self.patch(detail).flatten(2).transpose(1, 2)
        h = torch.cat([text, _copied(patches, copies)], 1) + self.positions.to(dtype)
        for block in self.blocks:
            h = block(h, modulation)
        shift, scale = self.final_modulation(conditioning).unsqueeze(1).chunk(2, -1)
        h = self.unpatch(_modulate(F.layer_norm(h[:, TOKEN_SLOTS:], (self.width,)), shift, scale))
        side = LATENT_SIDE // 2
        h = F.pixel_shuffle(h.transpose(1, 2).reshape(len(tokens), -1, side, side), 2)
        return cast(Tensor, self.head(_copied(detail, copies) + h))
