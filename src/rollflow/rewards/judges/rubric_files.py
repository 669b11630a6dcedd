"""Rubrics from files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollflow.errors import RollflowError
from rollflow.files.documents import read_text, read_yaml
from rollflow.rewards.judges.rubrics import RUBRICS, Field, Rubric, Text, Whole, YesNo

YAML = (".yaml", ".yml")
SUFFIXES = (".txt", ".md", *YAML)
PARTS = {"question", "answers", "weights"}
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_RANGE = re.compile(r"(\d{1,3})\s*-\s*(\d{1,3})")


@dataclass(frozen=True)
class OwnRubric(Rubric):
    """A question of the user's; the number is the weighted sum of the answers, yes being 1 and no 0.

    Args:
        text: The question, in which ``{prompt}`` stands for the prompt.
        answers: The fields, each with its name.
        weights: Of fields, by name; those not named weigh 1, words nothing.
    """

    text: str
    answers: tuple[tuple[str, Field], ...] = (("score", Whole("From 0, the worst, to 10, the best.")),)
    weights: tuple[tuple[str, float], ...] = ()
    name = "own"

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """What the lowest and highest answers make."""
        weights, low, high = dict(self.weights), 0.0, 0.0
        for name, field in self.answers:
            if not isinstance(field, Text):
                ends = (field.low, field.high) if isinstance(field, Whole) else (0, 1)
                made = [weights.get(name, 1.0) * end for end in ends]
                low, high = low + min(made), high + max(made)
        return low, high

    def question(self, prompt: str) -> str:
        return self.text.replace("{prompt}", prompt)

    def fields(self, prompt: str) -> dict[str, Field]:
        return dict(self.answers)

    def number(self, answer: Mapping[str, Any], prompt: str) -> float:
        weights = dict(self.weights)
        counted = [name for name, field in self.answers if not isinstance(field, Text)]
        return float(sum(weights.get(name, 1.0) * answer[name] for name in counted))


def rubric(text: str) -> Rubric:
    """A rubric by its name, or from a file by its path.

    Raises:
        RollflowError: If there is none of that name, or the file cannot be read.
    """
    if Path(text).suffix.lower() in SUFFIXES:
        return read_rubric(Path(text))
    try:
        return RUBRICS.make(text)
    except RollflowError as error:
        raise RollflowError(f"{error}; or the path of a file of yours ({', '.join(SUFFIXES)})") from None


def read_rubric(path: Path) -> OwnRubric:
    """A rubric from a file of text, which is the question, or of YAML.

    YAML has a ``question``; ``answers``, by name ``yes/no``, a range of whole numbers such as ``0-10``, or ``text``;
    and may have ``weights`` of these. Without answers one score from 0 to 10 is asked for.

    Raises:
        RollflowError: If the file cannot be read, or is of another form.
    """
    try:
        text = read_text(path)
        content = read_yaml(text) if path.suffix.lower() in YAML else {"question": text}
        return _rubric(content)
    except (OSError, ValueError) as error:
        raise RollflowError(f"rubric '{path}' cannot be read: {error}") from error


def _rubric(content: Any) -> OwnRubric:
    if not isinstance(content, dict) or set(content) - PARTS:
        raise ValueError(f"expected question, answers and weights, not {content!r:.100}")
    question, answers, weights = content.get("question"), content.get("answers"), content.get("weights", {})
    if not isinstance(question, str) or not question.strip():
        raise ValueError("it asks no question")
    if answers is None:
        answers = {"score": "0-10"}
    if not isinstance(answers, dict) or not isinstance(weights, dict):
        raise ValueError("answers and weights are by name, such as 'score: 0-10'")
    fields = tuple((str(name), _field(str(name), str(kind))) for name, kind in answers.items())
    counted = {name for name, field in fields if not isinstance(field, Text)}
    if not counted:
        raise ValueError("no answer counts; one must be yes/no or a range such as 0-10")
    for name, weight in weights.items():
        if name not in counted or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"weight {name}: {weight!r} is not a number of one of the answers that count")
    return OwnRubric(question.strip(), fields, tuple((name, float(weight)) for name, weight in weights.items()))


def _field(name: str, kind: str) -> Field:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no name for an answer; letters, digits and _ are")
    says = name.replace("_", " ")
    if kind == "text":
        return Text(says)
    if kind == "yes/no":
        return YesNo(says)
    match = _RANGE.fullmatch(kind)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"answer {name}: '{kind}' is none of yes/no, text, and a range such as 0-10")
    return Whole(says, int(match[1]), int(match[2]))
