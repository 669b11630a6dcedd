"""Rewards that ask a network about a picture: the question, and the probability of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rollflow import checks
from rollflow.rewards.pretrained.base import Pretrained
from rollflow.rewards.pretrained.text_cache import kept

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class VisualQuestion(Pretrained):
    """The probability that a network gives to an answer, of a picture and a question.

        reward = P(answer | picture, question(prompt)) = exp(mean over the answer's tokens of log p_k)

    Lin et al. 2024 (arXiv 2404.01291). The mean over the tokens is that of the authors' code
    (linzhiqiu/t2v_metrics 3.0), which takes the exponential of minus the mean cross-entropy.

    Args:
        checkpoint: Repository of the hub or folder; None is the published one.
        device: ``auto`` or a device of torch.
        batch_size: The most pictures at once.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is bfloat16 (the authors') on CUDA, else float32.

    Attributes:
        question: Where ``{}`` is the prompt.
        answer: What the network should say.
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
    """What turns a text into its tokens (n,), and keeps those of the last texts.

    Args:
        name: Repository or folder of the tokenizer.
        device: Where the tokens are wanted.
        folder: Inside of it.
        longest: The most tokens; of a longer text the end is kept.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, subfolder=folder, truncation_side="left")

    @kept
    def tokens(text: str) -> Tensor:
        return torch.tensor(tokenizer(text, truncation=longest is not None, max_length=longest).input_ids).to(device)

    return tokens


def answer_probability(logits: Tensor, answer: Tensor) -> Tensor:
    """exp(mean over k of log softmax(logits_k)[answer_k]), (B,).

    Args:
        logits: (B, K, vocabulary) before each token of the answer.
        answer: (K,) its tokens.
    """
    chances = logits.float().log_softmax(-1)
    return chances.gather(-1, answer.expand(len(logits), -1)[..., None])[..., 0].mean(-1).exp()


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as one tensor (B, longest, ...), and where they are as 1 in another (B, longest)."""
    pad = torch.nn.utils.rnn.pad_sequence
    there = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    return pad(list(rows), batch_first=True), pad(there, batch_first=True)


def t5_probability(language: Any, rows: Sequence[Tensor], answer: Tensor) -> Tensor:
    """``answer_probability`` by a T5 that has read rows of different lengths.

    Args:
        language: A ``T5ForConditionalGeneration``.
        rows: What its encoder reads, (length, width) each.
        answer: (K,) tokens.
    """
    read, mask = padded(rows)
    told = language(inputs_embeds=read, attention_mask=mask, labels=answer.repeat(len(rows), 1))
    return answer_probability(told.logits, answer)
