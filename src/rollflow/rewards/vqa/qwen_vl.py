"""VQAScore by a current vision-language model of the Qwen-VL family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollflow.files.pictures import as_pictures
from rollflow.rewards.base import Card
from rollflow.rewards.vqa.visual_question import VisualQuestion, answer_probability


class QwenNetworks(NamedTuple):
    """What it takes to ask; transformers' ``AutoProcessor`` would hold all but the first, but needs torchvision.

    Args:
        model: Reads and answers.
        tokenizer: With the chat template; pads on the left, so that the answer follows the last token of every row.
        patches: Image processor, that which resizes by PIL: makes of a picture the patches that ``model`` reads.
    """

    model: Any
    tokenizer: Any
    patches: Any


class QwenVQAScore(VisualQuestion):
    """The probability that a chat about a picture, asked 'Does this figure show "..."?', begins its answer with "Yes".

        reward = softmax(logits after the question)["Yes"]

    Lin et al. 2024 (arXiv 2404.01291) with the network of Bai et al. 2025 (arXiv 2502.13923); question and answer are
    those of linzhiqiu/t2v_metrics (qwen2vl_model.py); the chat template, with its system prompt, and the resizing to
    whole patches (PIL, bicubic) are the checkpoint's.

    Args:
        checkpoint: Repository or folder of another network of the family whose placeholder of a picture is one token a
            merged patch: Qwen2-VL, Qwen2.5-VL, Qwen3-VL.
        device: ``auto`` or a device of torch.
        batch_size: The most pictures at once.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    """

    name = "vqascore-qwen"
    description = "VQAScore by Qwen2.5-VL: probability of 'Yes' to whether the picture shows the prompt; in [0, 1]"
    published = "Qwen/Qwen2.5-VL-7B-Instruct"
    question = 'Does this figure show "{}"? Please answer Yes or No.'
    answer = "Yes"
    batch_size = 4
    card = Card(
        range="0 to 1",
        download="16.6 GB, by the number of weights",
        memory="16.6 GB in bfloat16, and 1 to 4 GB to run; twice that in float32",
        licence="Apache-2.0",
        reference="Bai et al. 2025, arXiv 2502.13923; Lin et al. 2024, arXiv 2404.01291",
    )

    def _networks(self) -> QwenNetworks:
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        load: Any = AutoImageProcessor.from_pretrained
        return QwenNetworks(
            self.ready(self.loaded(AutoModelForImageTextToText.from_pretrained, self.checkpoint, dtype=self.dtype)),
            self.loaded(AutoTokenizer.from_pretrained, self.checkpoint, padding_side="left"),
            self.loaded(load, self.checkpoint, backend="pil"),
        )

    def _chat(self, prompt: str, places: int) -> str:
        """The text of a chat in which a picture takes so many tokens."""
        said = [{"type": "image"}, {"type": "text", "text": self.question.format(prompt)}]
        model, words, _ = self.networks
        chat: str = words.apply_chat_template(
            [{"role": "user", "content": said}], tokenize=False, add_generation_prompt=True
        )
        place = words.convert_ids_to_tokens(model.config.image_token_id)
        return chat.replace(place, place * places, 1)

    @torch.no_grad()
    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        model, words, patches = self.networks
        seen = patches(images=as_pictures(pixels), return_tensors="pt").to(self.device)
        places = (seen["image_grid_thw"].prod(1) // patches.merge_size**2).tolist()
        chats = [self._chat(prompt, n) for prompt, n in zip(prompts, places, strict=True)]
        read = words(chats, padding=True, return_tensors="pt", add_special_tokens=False).to(self.device)
        told = model(
            input_ids=read["input_ids"],
            attention_mask=read["attention_mask"],
            mm_token_type_ids=(read["input_ids"] == model.config.image_token_id).int(),
            pixel_values=seen["pixel_values"].to(self.dtype),
            image_grid_thw=seen["image_grid_thw"],
            logits_to_keep=1,
        )
        answer = words(self.answer, add_special_tokens=False).input_ids[:1]
        return answer_probability(told.logits, torch.tensor(answer, device=self.device))
