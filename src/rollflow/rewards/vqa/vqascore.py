"""VQAScore by CLIP-FlanT5, the reward of the compositional experiments of arXiv 2503.19385."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from rollflow import checks
from rollflow.rewards.base import Card
from rollflow.rewards.pretrained.preprocessing import CLIP_MEAN, Pad, Preprocess
from rollflow.rewards.vqa.visual_question import VisualQuestion, reader

if TYPE_CHECKING:
    from rollflow.rewards.vqa.clip_flant5 import ClipFlanT5

BEFORE = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: "
)
AFTER = "\n{} ASSISTANT: "
"""Text before the picture, and after it (linzhiqiu/t2v_metrics 3.0, clip_t5_model.py, style ``t5_chat``)."""

MEAN_COLOUR = tuple(int(255 * mean) / 255 for mean in CLIP_MEAN)
"""Colour of the padding that makes a picture square (same file, ``expand2square``)."""


class Size(NamedTuple):
    """A published CLIP-FlanT5.

    Args:
        checkpoint: Repository of its weights.
        tokenizer: Repository of its tokenizer.
    """

    checkpoint: str
    tokenizer: str


SIZES = {
    "xxl": Size("zhiqiulin/clip-flant5-xxl", "google/flan-t5-xxl"),
    "xl": Size("zhiqiulin/clip-flant5-xl", "google/flan-t5-xl"),
}


class FlanT5Networks(NamedTuple):
    """The network, its tokenizer and its preprocessing.

    Args:
        flant5: The CLIP-FlanT5.
        tokens: Function from a text to its tokens.
        prepare: Preprocessing of pictures.
    """

    flant5: ClipFlanT5
    tokens: Callable[[str], Tensor]
    prepare: Preprocess


class VQAScore(VisualQuestion):
    """The probability that CLIP-FlanT5 answers "Yes" to 'Does this figure show "..."?' about a picture.

        reward = exp(mean of log p over the tokens "Yes" and </s>)

    Lin et al. 2024 (arXiv 2404.01291). Prompt, question, answer and preprocessing are those of the authors' code
    (linzhiqiu/t2v_metrics 3.0, clip_t5_model.py): the picture is padded to a square with CLIP's mean colour and resized
    to 336 by PIL's bicubic filter; the texts before and after it are tokenized separately, each ending in </s>.
    Deviations: ``dtype`` is used throughout, where the authors use autocast to bfloat16 on CUDA; and "<image>" in a
    prompt is plain text.

    Args:
        size: ``xxl``, as in arXiv 2503.19385, or ``xl``.
        checkpoint: Repository or folder of other weights of the same kind; None means those of the size.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is bfloat16 on CUDA, else float32.
        tokenizer: Repository or folder of the tokenizer; None means that of the size.
        tower: Repository or folder of the CLIP vision network; None means the one that the checkpoint names.
    """

    name = "vqascore"
    description = "VQAScore by CLIP-FlanT5: probability that the picture shows the prompt; differentiable; in [0, 1]"
    differentiable = True
    held_out = ("aesthetic",)
    published = SIZES["xxl"].checkpoint
    question = 'Does this figure show "{}"? Please answer yes or no.'
    answer = "Yes"
    card = Card(
        range="0 to 1",
        download="about 23 GB, plus 1.7 GB for CLIP (xl: 7 GB plus 1.7 GB)",
        memory="22.4 GB in bfloat16 (xl: 6.9 GB), plus 0.5 to 3 GB while running; twice that in float32",
        licence="Apache-2.0",
        reference="Lin et al. 2024, arXiv 2404.01291",
    )

    def __init__(
        self,
        size: str = "xxl",
        checkpoint: str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        dtype: str = "auto",
        tokenizer: str | None = None,
        tower: str | None = None,
    ) -> None:
        checks.one_of("size of vqascore", size, SIZES)
        for name, value in (("tokenizer", tokenizer), ("tower", tower)):
            checks.as_annotated(f"{name} of vqascore", value, str | None)
        super().__init__(checkpoint or SIZES[size].checkpoint, device, batch_size, dtype)
        self.vocabulary = tokenizer or SIZES[size].tokenizer
        self.tower = tower

    @property
    def _settings(self) -> tuple[str, ...]:
        usual = next((size.tokenizer for size in SIZES.values() if size.checkpoint == self.checkpoint), None)
        changed = {"tokenizer": self.vocabulary if self.vocabulary != usual else None, "tower": self.tower}
        return *super()._settings, *(f"{name}={value}" for name, value in changed.items() if value is not None)

    def _networks(self) -> FlanT5Networks:
        from rollflow.rewards.vqa.clip_flant5 import ClipFlanT5

        flant5 = self.ready(self.loaded(ClipFlanT5.from_pretrained, self.checkpoint, self.tower, self.dtype))
        tokens = self.loaded(reader, self.vocabulary, self.device)
        return FlanT5Networks(flant5, tokens, Preprocess(flant5.tower.config.image_size, Pad(), fill=MEAN_COLOUR))

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        flant5, tokens, prepare = self.networks
        after = [tokens(AFTER.format(self.question.format(prompt))) for prompt in prompts]
        pictures = prepare(pixels).to(self.device, self.dtype)
        probabilities: Tensor = flant5(pictures, tokens(BEFORE), after, tokens(self.answer))
        return probabilities
