"""CLIP-FlanT5, of which transformers has the parts only; imports them, so that it is imported late itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, T5Config, T5ForConditionalGeneration

from rollflow.rewards.vqa.visual_question import t5_probability


class ClipT5Config(T5Config):  # type: ignore[no-untyped-call]
    """That of T5 and, with the names and values of the published files, where the picture's features come from.

    Attributes:
        mm_vision_tower: Repository of the CLIP vision network.
        mm_hidden_size: Width of its features.
        mm_vision_select_layer: Which of its hidden states they are.
    """

    model_type = "clip_t5"
    mm_vision_tower: str = "openai/clip-vit-large-patch14-336"
    mm_hidden_size: int = 1024
    mm_vision_select_layer: int = -2


class ClipT5(T5ForConditionalGeneration):  # type: ignore[no-untyped-call]
    """A T5 and the projector of a picture's features into what its encoder reads, by the names of the checkpoint."""

    config_class = ClipT5Config
    # The vision tower, frozen in training, comes from its own repository, as the authors have it.
    _keys_to_ignore_on_load_unexpected: Any = (r"^vision_tower\.", r"^embed_tokens\.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mm_projector = nn.Sequential(
            nn.Linear(config.mm_hidden_size, config.d_model), nn.GELU(), nn.Linear(config.d_model, config.d_model)
        )
        self.post_init()  # type: ignore[no-untyped-call]


class ClipFlanT5(nn.Module):
    """The probability of an answer to a question about a picture (Lin et al. 2024, arXiv 2404.01291, section 4).

    The T5 encoder reads: the words before the picture, the 576 projected features of its patches (the last but one
    hidden state of CLIP ViT-L/14 at 336 pixels, without the class token), the words after it.

    Args:
        language: A ``ClipT5``.
        tower: A ``CLIPVisionModel``.
    """

    def __init__(self, language: Any, tower: Any) -> None:
        super().__init__()
        self.language = language
        self.tower = tower

    @classmethod
    def from_pretrained(cls, checkpoint: str, tower: str | None, dtype: torch.dtype) -> ClipFlanT5:
        """From the published files.

        Args:
            checkpoint: Repository or folder of the T5 and the projector.
            tower: That of the vision network; None is what the checkpoint names.
            dtype: Of all weights.

        Raises:
            ValueError: If the checkpoint lacks weights.
        """
        loaded: Any = ClipT5.from_pretrained(checkpoint, dtype=dtype, output_loading_info=True)
        language, report = loaded
        if report["missing_keys"]:
            lacks = ", ".join(sorted(report["missing_keys"])[:3])
            raise ValueError(f"expected the weights of a CLIP-FlanT5; among others it lacks {lacks}")
        vision = CLIPVisionModel.from_pretrained(tower or language.config.mm_vision_tower, dtype=dtype)
        return cls(language, vision)

    def forward(self, pixels: Tensor, before: Tensor, after: list[Tensor], answer: Tensor) -> Tensor:
        """Probabilities (B,).

        Args:
            pixels: (B, 3, side, side) as CLIP takes them.
            before: (n,) tokens before the picture.
            after: For each row, the tokens after it.
            answer: (K,) tokens.
        """
        layer = self.language.config.mm_vision_select_layer
        seen = self.tower(pixels, output_hidden_states=True).hidden_states[layer][:, 1:]
        words = self.language.get_input_embeddings()
        start = words(before)
        pictures = self.language.mm_projector(seen)
        rows = [torch.cat([start, picture, words(end)]) for picture, end in zip(pictures, after, strict=True)]
        return t5_probability(self.language, rows, answer)
