"""A reward by a person's judgement."""

from __future__ import annotations

import hashlib
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import ClassVar

import torch
from torch import Tensor

from rollflow import checks
from rollflow.errors import RewardUnavailable, RollflowError
from rollflow.files.atomic import make_folder, write
from rollflow.files.pictures import as_bytes
from rollflow.registry import Registry
from rollflow.rewards.base import Card, RewardModel
from rollflow.rewards.judges.terminal import Asker, Terminal


class Mode(ABC):
    """A kind of question to a person, and the scores that follow from the answer.

    Attributes:
        name: Name on the command line.
        bounds: Lowest and highest score.
    """

    name: ClassVar[str]
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    @abstractmethod
    def numbers(self, asker: Asker, prompt: str, shown: Mapping[int, Tensor], level: float) -> list[float]:
        """Ask about new candidates and return their scores.

        Args:
            asker: Interface that asks the person.
            prompt: Prompt that the candidates were made for.
            shown: New candidates, numbered from 1, and the best so far as number 0, if there is one.
            level: Score of the best so far; 0 if there is none.
        """


@dataclass(frozen=True)
class Choose(Mode):
    """Asks for the best among the new candidates and the best so far.

    A new candidate that is chosen scores 1 more than the best so far, and replaces it; all others score 0. So the k-th
    best candidate scores k, and a candidate that is not preferred to it never beats it. Two candidates that were not
    chosen are not compared. A first candidate on its own scores 1 without a question.
    """

    name = "choose"
    bounds = (0.0, math.inf)

    def numbers(self, asker: Asker, prompt: str, shown: Mapping[int, Tensor], level: float) -> list[float]:
        chosen = asker.choose(prompt, shown) if len(shown) > 1 else 1
        return [level + 1 if number == chosen else 0.0 for number in shown if number > 0]


@dataclass(frozen=True)
class Rate(Mode):
    """Asks for a rating from 0 to 10 of each candidate."""

    name = "rate"
    bounds = (0.0, 10.0)

    def numbers(self, asker: Asker, prompt: str, shown: Mapping[int, Tensor], level: float) -> list[float]:
        return asker.rate(prompt, {number: sample for number, sample in shown.items() if number > 0})


MODES: Registry[Mode] = Registry("mode", Mode, {mode.name: mode for mode in (Choose, Rate)})
"""Every kind of question, by its name on the command line."""


@dataclass
class _Answers:
    """The answers for one prompt: scores by the candidate's fingerprint, and the bytes of the best candidate."""

    numbers: dict[str, float] = field(default_factory=dict)
    best: Tensor | None = None


class Human(RewardModel):
    """A person's judgement of the candidates.

    Candidates are shown with the bytes they would be saved with; one whose bytes were judged before keeps its score
    without a question. Answers are saved in ``folder`` as they come, so that a run that ended because nobody answered
    can be continued with ``resume``.

    Args:
        mode: ``choose`` for the best candidate, ``rate`` for a rating of each, or a ``Mode``.
        folder: Folder for contact sheets and answers.
        show: Whether to open each contact sheet in the system's picture viewer.
        resume: Whether to continue from the answers in ``folder``; if False, the folder must have none of that mode.
        asker: Interface that asks the person; None is the terminal.

    Cost: one question per prompt and batch of up to 12 candidates.

    Raises:
        RollflowError: If the mode is unknown; from ``load`` and ``score`` if there are no answers to resume from, or
            if existing ones would be lost.
        RewardUnavailable: From ``score`` if nobody answers.
    """

    name = "human"
    interactive = True
    description = "a person's choice or rating, at the terminal"
    card = Card("choose: 0 or the number of bests found so far; rate: 0 to 10", "nothing", "-", "-", "you")
    batch_size = 12

    def __init__(
        self,
        mode: str | Mode = "choose",
        folder: str = "rollflow-human",
        show: bool = False,
        resume: bool = False,
        asker: Asker | None = None,
    ) -> None:
        checks.instance("mode of human", mode, str, Mode)
        checks.text("folder of human", str(folder) if isinstance(folder, Path) else folder)
        checks.flag("show of human", show)
        checks.flag("resume of human", resume)
        checks.instance("asker of human", asker, Asker, NoneType, what="an Asker or None")
        self.mode = MODES.make(mode) if isinstance(mode, str) else mode
        self.bounds = self.mode.bounds
        self.folder = Path(folder)
        self.resume = resume
        self.asker = asker or Terminal(self.folder, show)

    @property
    def identity(self) -> str:
        return f"{self.name}({self.mode.name})"

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.mode.name}.pt"

    @cached_property
    def _answers(self) -> dict[str, _Answers]:
        """Answers by prompt."""
        if not self.resume:
            if self._file.exists():
                raise RollflowError(
                    f"'{self._file}' has answers of an earlier run, which would be lost; continue from them with "
                    "human(resume=true), or choose another folder with human(folder=...)"
                )
            return {}
        try:
            saved = torch.load(self._file, weights_only=True)
            return {prompt: _Answers(**answers) for prompt, answers in saved.items()}
        except Exception as error:  # whatever a damaged file makes torch raise
            raise RollflowError(f"cannot read the answers to resume from in '{self._file}': {error}") from error

    def load(self) -> None:
        _ = self._answers

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        pictures = as_bytes(samples)
        prints = [hashlib.sha256(f"{one.shape}".encode() + one.numpy().tobytes()).hexdigest() for one in pictures]
        for prompt in dict.fromkeys(map(str, prompts)):
            answers = self._answers.setdefault(prompt, _Answers())
            of_prompt = {key: one for key, one, of in zip(prints, pictures, prompts, strict=True) if of == prompt}
            new = {key: one for key, one in of_prompt.items() if key not in answers.numbers}
            if new:
                self._ask(prompt, answers, new)
        scores = [self._answers[str(prompt)].numbers[key] for key, prompt in zip(prints, prompts, strict=True)]
        return torch.tensor(scores, dtype=torch.float64)

    def _ask(self, prompt: str, answers: _Answers, new: dict[str, Tensor]) -> None:
        level = max(answers.numbers.values(), default=0.0)
        best = {} if answers.best is None else {0: answers.best}
        shown = {number: one.float() / 255 for number, one in (best | dict(enumerate(new.values(), 1))).items()}
        numbers = dict(zip(new, self.mode.numbers(self.asker, prompt, shown, level), strict=True))
        answers.numbers |= numbers
        first = max(numbers, key=numbers.__getitem__)
        if answers.best is None or numbers[first] > level:
            answers.best = new[first]
        self._save()

    def _save(self) -> None:
        content = io.BytesIO()
        torch.save({prompt: vars(answers) for prompt, answers in self._answers.items()}, content)
        try:
            make_folder(self.folder)
            write(self.folder, {self._file.name: content.getvalue()})
        except OSError as error:
            raise RewardUnavailable(f"cannot save answers in '{self.folder}': {error}") from error
