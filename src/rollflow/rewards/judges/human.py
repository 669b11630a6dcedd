"""A person as the judge."""

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
    """What a person is asked, and the numbers that the answer makes.

    Attributes:
        name: As on the command line.
        bounds: Least and largest number.
    """

    name: ClassVar[str]
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    @abstractmethod
    def numbers(self, asker: Asker, prompt: str, shown: Mapping[int, Tensor], level: float) -> list[float]:
        """Of the new candidates.

        Args:
            asker: Who asks.
            prompt: What they were made for.
            shown: New candidates, numbered from 1, and the best so far as 0 where there is one.
            level: The number of the best so far; 0 where there is none.
        """


@dataclass(frozen=True)
class Choose(Mode):
    """The best of the new candidates and the best so far.

    A new candidate that is chosen gets the level of the best so far plus 1, and is the best from then on; all that are
    not chosen get 0. So the k-th best has k, whatever was scored before it, and a candidate that is not preferred to it
    never beats it. Of two that were not chosen nothing is known. The very first candidate, alone, has nothing to be
    compared with: it gets 1 without a question.
    """

    name = "choose"
    bounds = (0.0, math.inf)

    def numbers(self, asker: Asker, prompt: str, shown: Mapping[int, Tensor], level: float) -> list[float]:
        chosen = asker.choose(prompt, shown) if len(shown) > 1 else 1
        return [level + 1 if number == chosen else 0.0 for number in shown if number > 0]


@dataclass(frozen=True)
class Rate(Mode):
    """A number from 0 to 10 for each."""

    name = "rate"
    bounds = (0.0, 10.0)

    def numbers(self, asker: Asker, prompt: str, shown: Mapping[int, Tensor], level: float) -> list[float]:
        return asker.rate(prompt, {number: sample for number, sample in shown.items() if number > 0})


MODES: Registry[Mode] = Registry("mode", Mode, {mode.name: mode for mode in (Choose, Rate)})
"""Every way to ask, by its name on the command line."""


@dataclass
class _Judged:
    """What is known of one prompt: numbers by fingerprint of the candidate, and the bytes of the best."""

    numbers: dict[str, float] = field(default_factory=dict)
    best: Tensor | None = None


class Human(RewardModel):
    """What a person thinks of the candidates.

    A candidate is shown as the bytes that it would be saved as, and one whose bytes were judged before keeps its number
    unasked. Answers are kept in ``folder`` as they come: a run that ended for want of a person can be gone on with, by
    ``resume``.

    Args:
        mode: ``choose`` the best, or ``rate`` each; or a ``Mode``.
        folder: Of the contact sheets and the answers.
        show: Whether the terminal opens each contact sheet in the system's viewer.
        resume: Whether to go on from the answers in ``folder``; otherwise there must be none of that mode.
        asker: Who asks; None is the terminal.

    Cost: a question a prompt and batch of up to 12 candidates.

    Raises:
        RollflowError: If there is no such mode; from ``load`` and ``score`` if there are no answers to go on from, or
            some that would be lost.
        RewardUnavailable: From ``score`` if nobody answers.
    """

    name = "human"
    interactive = True
    description = "a person's choice or rating, at the terminal"
    card = Card("choose: 0 or the number of times that a best was found; rate: 0 to 10", "nothing", "-", "-", "you")
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
    def _judged(self) -> dict[str, _Judged]:
        """By prompt."""
        if not self.resume:
            if self._file.exists():
                raise RollflowError(
                    f"'{self._file}' holds answers of an earlier run, which would be lost: human(resume=true) goes on "
                    "from them, human(folder=...) keeps new ones elsewhere"
                )
            return {}
        try:
            kept = torch.load(self._file, weights_only=True)
            return {prompt: _Judged(**judged) for prompt, judged in kept.items()}
        except Exception as error:  # whatever a damaged file makes torch raise
            raise RollflowError(f"no answers to go on from can be read from '{self._file}': {error}") from error

    def load(self) -> None:
        _ = self._judged

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        shots = as_bytes(samples)
        prints = [hashlib.sha256(f"{shot.shape}".encode() + shot.numpy().tobytes()).hexdigest() for shot in shots]
        for prompt in dict.fromkeys(map(str, prompts)):
            judged = self._judged.setdefault(prompt, _Judged())
            of_prompt = {at: shot for at, shot, of in zip(prints, shots, prompts, strict=True) if of == prompt}
            new = {at: shot for at, shot in of_prompt.items() if at not in judged.numbers}
            if new:
                self._ask(prompt, judged, new)
        told = [self._judged[str(prompt)].numbers[at] for at, prompt in zip(prints, prompts, strict=True)]
        return torch.tensor(told, dtype=torch.float64)

    def _ask(self, prompt: str, judged: _Judged, new: dict[str, Tensor]) -> None:
        level = max(judged.numbers.values(), default=0.0)
        best = {} if judged.best is None else {0: judged.best}
        shown = {number: shot.float() / 255 for number, shot in (best | dict(enumerate(new.values(), 1))).items()}
        numbers = dict(zip(new, self.mode.numbers(self.asker, prompt, shown, level), strict=True))
        judged.numbers |= numbers
        first = max(numbers, key=numbers.__getitem__)
        if judged.best is None or numbers[first] > level:
            judged.best = new[first]
        self._keep()

    def _keep(self) -> None:
        content = io.BytesIO()
        torch.save({prompt: vars(judged) for prompt, judged in self._judged.items()}, content)
        try:
            make_folder(self.folder)
            write(self.folder, {self._file.name: content.getvalue()})
        except OSError as error:
            raise RewardUnavailable(f"answers cannot be kept in '{self.folder}': {error}") from error
