"""Soft-TIFA: the geometric mean of the probabilities that a picture shows each of several things."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.prompts import NUMBERS, asked, plural
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.scoring import rewards_of
from rollflow.rewards.wrappers.base import Wrapper

_WORDS = {number: word for word, number in NUMBERS.items() if word not in ("a", "an", "zero")}
_SMALLEST = 1e-30


class SoftTIFA(Wrapper):
    """The geometric mean of the probabilities that a picture shows each of several things.

        r = exp(mean over q of log p_q)

    The prompt-level Soft-TIFA of Kamath et al. 2025 (GenEval 2, arXiv 2512.16853; "Soft-TIFA GM" in their code), which
    makes the share of right answers of TIFA (Hu et al. 2023, arXiv 2303.11897) smooth: p_q is the probability of the
    right answer to question q. One wrong part lowers the reward, and which part that is does not matter, while a single
    question about a long prompt may overlook it.

    Deviations: the benchmark comes with questions and answers for each of its prompts. Here a question is a statement
    that the other reward is given in place of the prompt ('Does this figure show "three cats"?'). Without statements
    of your own there is one for each count that the prompt asks for (``prompts.asked``), and the whole prompt.

    Args:
        reward: Reward from 0 to 1 that is a probability, such as ``vqascore``.
        questions: Statements, for all prompts; None takes them from the prompt.

    Cost: one reward call in the account, and one call of the reward for each question.

    Raises:
        BadSetting: If the reward does not range from 0 to 1 or is relative, or there are no questions.
    """

    name = "soft-tifa"
    description = "geometric mean of the probabilities of several statements: soft-tifa(reward=vqascore); in [0, 1]"
    card = Card("0 to 1", "that of its reward", "that of its reward", "that of its reward", "arXiv 2512.16853")

    def __init__(self, reward: RewardModel, questions: tuple[str, ...] | None = None) -> None:
        super().__init__(reward)
        checks.instance(f"questions of {self.name}", questions, tuple, list, NoneType, what="a tuple of texts or None")
        self.questions = None if questions is None else checks.each("questions", questions, checks.text)
        if self.questions == ():
            raise BadSetting(f"questions of {self.name} are empty; give some, or none for those of the prompt")
        self.bounds = (0.0, 1.0)
        if not reward.remote:
            self._check_range()

    def _learn(self) -> None:
        super()._learn()
        self.structured = True

    def _check_range(self) -> None:
        if self.reward.bounds != (0.0, 1.0):
            raise BadSetting(f"'{self.name}' needs a reward from 0 to 1, such as vqascore, not '{self.reward.name}'")

    def load(self) -> None:
        super().load()
        self._check_range()

    @property
    def identity(self) -> str:
        told = "" if self.questions is None else f", {'; '.join(self.questions)}"
        return f"{self.name}({self.reward.identity}{told})"

    def check(self, prompt: str) -> None:
        for question in self.asked_of(prompt):
            super().check(question)

    def asked_of(self, prompt: str) -> tuple[str, ...]:
        """Return the statements about the picture of a prompt."""
        if self.questions is not None:
            return self.questions
        return (*(statement(thing, count) for thing, count in asked(prompt).items()), str(prompt))

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        questions = [self.asked_of(prompt) for prompt in prompts]
        rows = torch.tensor([row for row, of_row in enumerate(questions) for _ in of_row])
        texts = [text for of_row in questions for text in of_row]
        log_p = rewards_of(self.reward, samples[rows], texts).clamp_min(_SMALLEST).log()
        counts = torch.tensor([len(of_row) for of_row in questions])
        return (log_p.new_zeros(len(samples)).index_add(0, rows, log_p) / counts).exp()


def statement(thing: str, count: int) -> str:
    """Return a number of things in words: "three cats"."""
    return f"{_WORDS.get(count, str(count))} {thing if count == 1 else plural(thing)}"
