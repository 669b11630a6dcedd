"""CLIP-FlanT5, built from parts of transformers; imported only when needed, since it imports them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, T5Config, T5ForConditionalGeneration

from rollflow.rewards.vqa.visual_question import t5_probability


class ClipT5Config(T5Config):  # type: ignore[no-untyped-call]
    """The configuration of T5 and of the vision features, with the names and defaults of the published files.

    Attributes:
        mm_vision_tower: Repository of the CLIP vision network.
        mm_hidden_size: Width of its features.
        mm_vision_select_layer: Index of the hidden state that provides the features.
    """

    model_type = "clip_t5"
    mm_vision_tower: str = "openai/clip-vit-large-patch14-336"
    mm_hidden_size: int = 1024
    mm_vision_select_layer: int = -2


class ClipT5(T5ForConditionalGeneration):  # type: ignore[no-untyped-call]
    """A T5 and the projector of vision features into its encoder's input, with the checkpoint's parameter names."""

    config_class = ClipT5Config
    # As in the authors' code, the vision tower comes from its own repository; it was frozen in training.
    _keys_to_ignore_on_load_unexpected: Any = (r"^vision_tower\.", r"^embed_tokens\.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mm_projector = nn.Sequential(
            nn.Linear(config.mm_hidden_size, config.d_model), nn.GELU(), nn.Linear(config.d_model, config.d_model)
        )
        self.post_init()  # type: ignore[no-untyped-call]


class ClipFlanT5(nn.Module):
    """Computes the probability of an answer to a question about a picture.

    Lin et al. 2024, arXiv 2404.01291, section 4. The T5 encoder reads the text before the picture, the 576 projected
    features of its patches (the last but one hidden state of CLIP ViT-L/14 at 336 pixels, without the class token), and
    the text after it.

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
        """Load the published files.

        Args:
            checkpoint: Repository or folder of the T5 and the projector.
            tower: Repository or folder of the vision network; None means the one that the checkpoint names.
            dtype: Data type of all weights.

        Raises:
            ValueError: If the checkpoint lacks weights.
        """
        loaded: Any = ClipT5.from_pretrained(checkpoint, dtype=dtype, output_loading_info=True)
        language, report = loaded
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise ValueError(f"expected the weights of a CLIP-FlanT5, but some are missing, such as {missing}")
        vision = CLIPVisionModel.from_pretrained(tower or language.config.mm_vision_tower, dtype=dtype)
        return cls(language, vision)

    def forward(self, pixels: Tensor, before: Tensor, after: list[Tensor], answer: Tensor) -> Tensor:
        """Compute the probability (B,) of the answer.

        Args:
            pixels: Pictures (B, 3, side, side), preprocessed for CLIP.
            before: Tokens (n,) before the picture.
            after: Tokens after the picture, for each row.
            answer: Tokens (K,) of the answer.
        """
        layer = self.language.config.mm_vision_select_layer
        features = self.tower(pixels, output_hidden_states=True).hidden_states[layer][:, 1:]
        embed = self.language.get_input_embeddings()
        start = embed(before)
        pictures = self.language.mm_projector(features)
        rows = [torch.cat([start, picture, embed(end)]) for picture, end in zip(pictures, after, strict=True)]
        return t5_probability(self.language, rows, answer)
