"""The common parts of rewards based on CLIP: networks, normalized embeddings, and a cache of text embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rollflow.rewards.pretrained.base import Pretrained
from rollflow.rewards.pretrained.preprocessing import Preprocess
from rollflow.rewards.pretrained.text_cache import cached


class Clip(NamedTuple):
    """The networks of a CLIP.

    Args:
        model: A ``CLIPModel``.
        tokenizer: Tokenizer of the text encoder.
        text: Function from a text to its embedding (D,) of length one.
    """

    model: Any
    tokenizer: Any
    text: Callable[[str], Tensor]


class PictureTower(Pretrained):
    """A reward that embeds pictures by CLIP's vision encoder.

    Attributes:
        prepare: Preprocessing of pictures for the network.
    """

    differentiable = True
    prepare: ClassVar[Preprocess] = Preprocess(224)

    def _clip(self) -> Any:
        """Load the ``CLIPModel`` of the checkpoint."""
        from transformers import CLIPModel

        return self.ready(self.loaded(CLIPModel.from_pretrained, self.checkpoint, dtype=torch.float32))

    def prepared(self, pixels: Tensor) -> Tensor:
        """Preprocess pictures (B, 3, H, W) in [0, 1] to (B, 3, side, side) on the network's device."""
        return self.prepare(pixels).to(self.device, torch.float32)

    def embedded(self, model: Any, pixels: Tensor) -> Tensor:
        """Embed pictures as vectors (B, D) of length one."""
        pooled = model.vision_model(pixel_values=self.prepared(pixels)).pooler_output
        return F.normalize(model.visual_projection(pooled), dim=-1)


class ClipReward(PictureTower):
    """A reward based on the cosine similarity of picture and prompt in a CLIP.

        cos(x, c) = <f(x), g(c)> / (|f(x)| |g(c)|)

    where f(x) is the embedding of the picture and g(c) that of the prompt, in float32. Texts are truncated to 77
    tokens, the last of them the end-of-text token. Each text is embedded on its own, and the last ``text_cache.KEPT``
    embeddings are cached.

    Args:
        checkpoint: Hub repository (``owner/name``) or folder of the weights; None means the published ones.
        base: Repository or folder of the CLIP that the weights were tuned from, which has the tokenizer; None means
            the published one.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.

    Attributes:
        tuned_from: The published ``base``; None where the checkpoint has its own tokenizer.
        prefix: Text put before every prompt.
    """

    given_by = "checkpoint=... and base=..."
    tuned_from: ClassVar[str | None] = None
    prefix: ClassVar[str] = ""

    def __init__(
        self,
        checkpoint: str | None = None,
        base: str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        super().__init__(checkpoint, device, batch_size)
        self.base = base or self.tuned_from or self.checkpoint

    @property
    def _settings(self) -> tuple[str, ...]:
        return () if self.base in (self.tuned_from, self.checkpoint) else (f"base={self.base}",)

    def _networks(self) -> Clip:
        from transformers import AutoTokenizer

        model, tokenizer = self._clip(), self.loaded(AutoTokenizer.from_pretrained, self.base)
        return Clip(model, tokenizer, cached(partial(_embedded, model, tokenizer, self.device)))

    def cosines(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine similarities (B,) of pictures (B, 3, H, W) in [0, 1] with their prompts."""
        model, _, text = self.networks
        return (self.embedded(model, pixels) * torch.stack([text(self.prefix + prompt) for prompt in prompts])).sum(-1)


@torch.no_grad()
def _embedded(model: Any, tokenizer: Any, device: torch.device, text: str) -> Tensor:
    tokens = tokenizer(text, truncation=True, max_length=77, return_tensors="pt")
    pooled = model.text_model(input_ids=tokens["input_ids"].to(device)).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)[0]
