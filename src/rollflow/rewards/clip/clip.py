"""What the rewards by a CLIP share: its networks, embeddings of length one, and those of prompts kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rollflow.rewards.pretrained.base import Pretrained
from rollflow.rewards.pretrained.preprocessing import Preprocess
from rollflow.rewards.pretrained.text_cache import kept


class Clip(NamedTuple):
    """What it takes to compare.

    Args:
        model: A ``CLIPModel``.
        tokenizer: Of its texts.
        text: The embedding (D,) of a text, of length one.
    """

    model: Any
    tokenizer: Any
    text: Callable[[str], Tensor]


class PictureTower(Pretrained):
    """A reward that looks at pictures through CLIP.

    Attributes:
        prepare: Pictures as the network takes them.
    """

    differentiable = True
    prepare: ClassVar[Preprocess] = Preprocess(224)

    def _clip(self) -> Any:
        """The ``CLIPModel`` of the checkpoint."""
        from transformers import CLIPModel

        return self.ready(self.loaded(CLIPModel.from_pretrained, self.checkpoint, dtype=torch.float32))

    def prepared(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) as the network takes pictures (B, 3, H, W) in [0, 1], on its device."""
        return self.prepare(pixels).to(self.device, torch.float32)

    def embedded(self, model: Any, pixels: Tensor) -> Tensor:
        """Embeddings (B, D) of pictures, of length one."""
        pooled = model.vision_model(pixel_values=self.prepared(pixels)).pooler_output
        return F.normalize(model.visual_projection(pooled), dim=-1)


class ClipReward(PictureTower):
    """A reward by the cosine of picture and prompt in a CLIP.

        cos(x, c) = <f(x), g(c)> / (|f(x)| |g(c)|)

    of the picture's embedding f(x) and the prompt's g(c), in float32. Texts are cut to 77 tokens, the last of them the
    end of text; each is embedded alone, and once as long as it is among the last ``texts.KEPT``.

    Args:
        checkpoint: Repository of the hub (``owner/name``) or folder; None is the published one.
        base: Repository or folder of the CLIP that it was tuned from, and whose tokenizer it has; None is the published
            one.
        device: ``auto`` (CUDA, else Apple's, else the CPU) or a device of torch.
        batch_size: The most pictures at once; None is the reward's own.

    Attributes:
        tuned_from: The published ``base``; None where the checkpoint has its own tokenizer.
        prefix: What every prompt begins with.
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
        return Clip(model, tokenizer, kept(partial(_embedded, model, tokenizer, self.device)))

    def cosines(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) of pictures (B, 3, H, W) in [0, 1], each with its prompt."""
        model, _, text = self.networks
        return (self.embedded(model, pixels) * torch.stack([text(self.prefix + prompt) for prompt in prompts])).sum(-1)


@torch.no_grad()
def _embedded(model: Any, tokenizer: Any, device: torch.device, text: str) -> Tensor:
    tokens = tokenizer(text, truncation=True, max_length=77, return_tensors="pt")
    pooled = model.text_model(input_ids=tokens["input_ids"].to(device)).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)[0]
