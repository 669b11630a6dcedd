"""The base of rewards that ask a network a question about a picture and use the probability of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rollflow import checks
from rollflow.rewards.pretrained.base import Pretrained
from rollflow.rewards.pretrained.text_cache import cached

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class VisualQuestion(Pretrained):
    """The probability of a network's answer to a question about a picture.

        reward = P(answer | picture, question(prompt)) = exp(mean over the answer's tokens of log p_k)

    Lin et al. 2024 (arXiv 2404.01291). The mean over the tokens follows the authors' code (linzhiqiu/t2v_metrics 3.0),
    which takes the exponential of minus the mean cross-entropy.

    Args:
        checkpoint: Hub repository or folder of the weights; None means the published ones.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is bfloat16 (like the authors) on CUDA, else float32.

    Attributes:
        question: Question, in which ``{}`` stands for the prompt.
        answer: Answer whose probability is the reward.
    """

    question: ClassVar[str]
    answer: ClassVar[str]
    batch_size = 8
    bounds = (0.0, 1.0)

    def __init__(
        self,
        checkpoint: str | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        dtype: str = "auto",
    ) -> None:
        super().__init__(checkpoint, device, batch_size)
        checks.one_of("dtype", dtype, ["auto", *PRECISIONS])
        usual = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.dtype = PRECISIONS.get(dtype, usual)

    @property
    def _settings(self) -> tuple[str, ...]:
        return (str(self.dtype).removeprefix("torch."),)


def reader(name: str, device: torch.device, folder: str = "", longest: int | None = None) -> Callable[[str], Tensor]:
    """Load a tokenizer as a function from a text to its tokens (n,), which caches the last texts.

    Args:
        name: Repository or folder of the tokenizer.
        device: Device of the tokens.
        folder: Subfolder of the repository or folder.
        longest: Largest number of tokens; only the end of a longer text is kept.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, subfolder=folder, truncation_side="left")

    @cached
    def tokens(text: str) -> Tensor:
        return torch.tensor(tokenizer(text, truncation=longest is not None, max_length=longest).input_ids).to(device)

    return tokens


def answer_probability(logits: Tensor, answer: Tensor) -> Tensor:
    """Probability (B,) of an answer: exp(mean over k of log softmax(logits_k)[answer_k]).

    Args:
        logits: Logits (B, K, vocabulary) before each token of the answer.
        answer: Tokens (K,) of the answer.
    """
    log_p = logits.float().log_softmax(-1)
    return log_p.gather(-1, answer.expand(len(logits), -1)[..., None])[..., 0].mean(-1).exp()


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad rows to one tensor (B, longest, ...), and return it with its mask (B, longest), which is 1 inside rows."""
    pad = torch.nn.utils.rnn.pad_sequence
    ones = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    return pad(list(rows), batch_first=True), pad(ones, batch_first=True)


def t5_probability(language: Any, rows: Sequence[Tensor], answer: Tensor) -> Tensor:
    """Probability (B,) of an answer by a T5 whose encoder reads rows of different lengths.

    Args:
        language: A ``T5ForConditionalGeneration``.
        rows: Input embeddings (length, width) of the encoder, for each row.
        answer: Tokens (K,) of the answer.
    """
    embeddings, mask = padded(rows)
    output = language(inputs_embeds=embeddings, attention_mask=mask, labels=answer.repeat(len(rows), 1))
    return answer_probability(output.logits, answer)
