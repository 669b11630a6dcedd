"""VQAScore by InstructBLIP, the held-out reward of the compositional experiments of arXiv 2503.19385."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rollflow.rewards.base import Card
from rollflow.rewards.pretrained.preprocessing import Preprocess
from rollflow.rewards.vqa.visual_question import VisualQuestion, padded, reader, t5_probability

LONGEST = 128
"""Number of tokens of a question that are read, the last ones (LAVIS, blip2_t5_instruct.py, ``max_txt_len``)."""


class InstructBlipNetworks(NamedTuple):
    """The network, its tokenizers and its preprocessing.

    Args:
        blip: An ``InstructBlipForConditionalGeneration``.
        tokens: Function from a text to the tokens of the T5.
        words: Function from a text to the tokens of the Q-Former.
        prepare: Preprocessing of pictures.
    """

    blip: Any
    tokens: Callable[[str], Tensor]
    words: Callable[[str], Tensor]
    prepare: Preprocess


class InstructBlipVQAScore(VisualQuestion):
    """The probability that InstructBLIP answers "yes" to 'Question: Does this figure show "..."?' about a picture.

        reward = exp(mean of log p over the tokens "yes" and </s>)

    Lin et al. 2024 (arXiv 2404.01291) with the network of Dai et al. 2023 (arXiv 2305.06500). Question, answer and
    preprocessing are those of linzhiqiu/t2v_metrics 3.0 (instructblip_model.py): the shorter side is resized to 224 by
    PIL's bicubic filter and the centre is cropped. The Q-Former reads the question too. Deviations: the weights are
    those converted by transformers, and ``dtype`` is used throughout.

    Args:
        checkpoint: Repository or folder of other weights of the same kind with a T5, such as
            ``Salesforce/instructblip-flan-t5-xl``; None means the published ones.
        device: Torch device, or ``auto`` for CUDA, else Apple's MPS, else the CPU.
        batch_size: Largest number of pictures per call; None means the default of this reward.
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is bfloat16 on CUDA, else float32.
    """

    name = "vqascore-instructblip"
    description = "VQAScore by InstructBLIP: probability that the picture shows the prompt; differentiable; in [0, 1]"
    differentiable = True
    published = "Salesforce/instructblip-flan-t5-xxl"
    question = 'Question: Does this figure show "{}"? Please answer yes or no.'
    answer = "yes"
    card = Card(
        range="0 to 1",
        download="about 49 GB (float32)",
        memory="25 GB in bfloat16, plus 0.5 to 3 GB while running; twice that in float32",
        licence="MIT",
        reference="Dai et al. 2023, arXiv 2305.06500; Lin et al. 2024, arXiv 2404.01291",
    )

    def _networks(self) -> InstructBlipNetworks:
        from transformers import InstructBlipForConditionalGeneration

        load: Any = InstructBlipForConditionalGeneration.from_pretrained
        blip = self.ready(self.loaded(load, self.checkpoint, dtype=self.dtype))
        tokens = self.loaded(reader, self.checkpoint, self.device, longest=LONGEST)
        words = self.loaded(reader, self.checkpoint, self.device, folder="qformer_tokenizer", longest=LONGEST)
        return InstructBlipNetworks(blip, tokens, words, Preprocess(blip.config.vision_config.image_size))

    def score_pictures(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        blip, tokens, words, prepare = self.networks
        questions = [self.question.format(prompt) for prompt in prompts]
        features = blip.vision_model(prepare(pixels).to(self.device, self.dtype)).last_hidden_state
        queries = blip.query_tokens.to(features).expand(len(features), -1, -1)
        ids, text_mask = padded([words(question) for question in questions])
        mask = torch.cat([text_mask.new_ones(queries.shape[:2]), text_mask], 1)
        states = blip.qformer(ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=features)
        pictures = blip.language_projection(states.last_hidden_state[:, : queries.shape[1]])
        embed = blip.language_model.get_input_embeddings()
        rows = [
            torch.cat([picture, embed(tokens(question))]) for picture, question in zip(pictures, questions, strict=True)
        ]
        return t5_probability(blip.language_model, rows, tokens(self.answer))
