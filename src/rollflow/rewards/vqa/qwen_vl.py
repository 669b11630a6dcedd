"""VQAScore by a vision-language model of the Qwen-VL family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollflow.files.pictures import as_pictures
from rollflow.rewards.base import Card
from rollflow.rewards.vqa.visual_question import VisualQuestion, answer_probability


class QwenNetworks(NamedTuple):
    """The network, its tokenizer and its image processor; transformers' ``AutoProcessor`` would need torchvision.

    Args:
        model: The vision-language model.
        tokenizer: Tokenizer with the chat template; pads on the left, so that every row ends where the answer begins.
        patches: Image processor that resizes with PIL and splits pictures into patches.
    """

    model: Any
    tokenizer: Any
    patches: Any


class QwenVQAScore(VisualQuestion):
    """The probability that Qwen-VL answers "Yes" to 'Does this figure show "..."?' about a picture.

        reward = softmax(logits after the question)["Yes"]

    Lin et al. 2024 (arXiv 2404.01291) with the network of Bai et al. 2025 (arXiv 2502.13923). Question and answer are
    those of linzhiqiu/t2v_metrics (qwen2vl_model.py); the chat template, with its system prompt, and the resizing to
    whole patches (PIL, bicubic) are the checkpoint's.

    Args:
        checkpoint: Repository or folder of another network of the family that has one placeholder token per merged
            patch (Qwen2-VL, Qwen2.5-VL, Qwen3-VL); None means the published one.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is bfloat16 on CUDA, else float32.
    """

    name = "vqascore-qwen"
    description = "VQAScore by Qwen2.5-VL: probability that the picture shows the prompt; in [0, 1]"
    published = "Qwen/Qwen2.5-VL-7B-Instruct"
    question = 'Does this figure show "{}"? Please answer Yes or No.'
    answer = "Yes"
    batch_size = 4
    card = Card(
        range="0 to 1",
        download="about 16.6 GB",
        memory="16.6 GB in bfloat16, plus 1 to 4 GB while running; twice that in float32",
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

    def _chat(self, prompt: str, picture_tokens: int) -> str:
        """The text of a chat in which the picture takes ``picture_tokens`` tokens."""
        content = [{"type": "image"}, {"type": "text", "text": self.question.format(prompt)}]
        model, tokenizer, _ = self.networks
        chat: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        placeholder = tokenizer.convert_ids_to_tokens(model.config.image_token_id)
        return chat.replace(placeholder, placeholder * picture_tokens, 1)

    @torch.no_grad()
    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        model, tokenizer, patches = self.networks
        images = patches(images=as_pictures(pixels), return_tensors="pt").to(self.device)
        picture_tokens = (images["image_grid_thw"].prod(1) // patches.merge_size**2).tolist()
        chats = [self._chat(prompt, n) for prompt, n in zip(prompts, picture_tokens, strict=True)]
        text = tokenizer(chats, padding=True, return_tensors="pt", add_special_tokens=False).to(self.device)
        output = model(
            input_ids=text["input_ids"],
            attention_mask=text["attention_mask"],
            mm_token_type_ids=(text["input_ids"] == model.config.image_token_id).int(),
            pixel_values=images["pixel_values"].to(self.dtype),
            image_grid_thw=images["image_grid_thw"],
            logits_to_keep=1,
        )
        answer = tokenizer(self.answer, add_special_tokens=False).input_ids[:1]
        return answer_probability(output.logits, torch.tensor(answer, device=self.device))
