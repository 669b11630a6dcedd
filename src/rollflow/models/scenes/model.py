"""The embedded models: emoji scenes of 64 x 64 pixels from prompts of a closed grammar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rollflow.models.base import FlowModel
from rollflow.models.loading import Dtype, load_weights
from rollflow.models.scenes.grammar import VOCABULARY_SIZE, parse
from rollflow.models.scenes.networks import LATENT_CHANNELS, LATENT_SIDE, Autoencoder, DiT
from rollflow.runtime.devices import check_device, device_named
from rollflow.runtime.forks import Home

WEIGHTS = Path(__file__).parent / "weights"


class _ScenesModel(FlowModel):
    """A latent flow model with a shared autoencoder; the condition of a row is the six tokens of its caption.

    Threads may share a model; a fork of the process that loaded it cannot use it.

    Args:
        weights: Folder with ``autoencoder.safetensors`` and the file of the network.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        dtype: Type in which the networks compute, ``float32`` or ``bfloat16``; states stay in float32. bfloat16 pays on
            CPUs with AMX, and changes velocities by about 1 %.

    Raises:
        BadSetting: If the device or the dtype is not known or available.
        BadWeights: If a file is missing or damaged.
    """

    suite_family = "scenes"
    file: str
    guidance: float
    shape = (LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)

    def __init__(self, weights: Path = WEIGHTS, device: str = "cpu", dtype: Dtype = "float32") -> None:
        self._home = Home(self.name)
        self._dtype = dtype
        self.device = device_named(device)
        check_device(self.device)
        self.network = DiT(VOCABULARY_SIZE)
        self.autoencoder = Autoencoder()
        self._digests = (
            load_weights(self.network, weights / self.file, device, dtype),
            load_weights(self.autoencoder, weights / "autoencoder.safetensors", device, dtype),
        )

    @property
    def identity(self) -> str:
        """The name, the beginnings of the SHA-256 of both files, and the dtype unless it is float32."""
        network, autoencoder = self._digests
        settings = "" if self._dtype == "float32" else f", dtype={self._dtype}"
        return f"{self.name}({network}, autoencoder={autoencoder}{settings})"

    @classmethod
    def check_prompt(cls, prompt: str) -> None:
        parse(prompt)

    def encode(self, prompt: str) -> list[int]:
        """Convert a prompt to its tokens; raises a PromptError if the prompt is outside the grammar."""
        return parse(prompt).tokens()

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[list[int]]) -> Tensor:
        self._home.check()
        tokens = torch.tensor(conditions, device=self.device)
        states, times = x.to(self.device), t.to(self.device, torch.float32)
        if self.guidance == 1:
            plain: Tensor = self.network(states, times, tokens)
            return plain.to(x)
        if self._dtype == "float32":  # twice through the stem, too: the order of a convolution's sums may change with
            states, times = states.repeat(2, 1, 1, 1), times.repeat(2)  # the number of its rows, and so the last bit
        both = self.network(states, times, torch.cat([tokens, torch.full_like(tokens, DiT.NULL)]))
        conditional, unconditional = both.to(x).chunk(2)
        return torch.lerp(unconditional, conditional, self.guidance)

    def decode(self, x0: Tensor) -> Tensor:
        """Decode latents (B, 16, 8, 8) to pixels (B, 3, 64, 64) in [0, 1]."""
        self._home.check()
        return self.autoencoder.decode(x0.to(self.device)).add(1).div(2).clamp(0, 1).cpu()


class ScenesBase(_ScenesModel):
    """The base model, with classifier-free guidance (arXiv 2207.12598): two network rows per NFE."""

    name = "scenes-base"
    description = "emoji scenes at 64x64, classifier-free guidance (embedded)"
    file = "base.safetensors"
    guidance = 1.5
    rows_per_nfe = 2


class ScenesTurbo(_ScenesModel):
    """The model distilled from the base and its guidance: one network row per NFE, and sharp estimates early on."""

    name = "scenes-turbo"
    description = "emoji scenes at 64x64, step-distilled, no guidance (embedded)"
    file = "turbo.safetensors"
    guidance = 1.0
    few_step = True
