"""Rubrics read from files."""

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
    """A rubric of the user's; the score is the weighted sum of the answers, where yes is 1 and no 0.

    Args:
        text: Question, in which ``{prompt}`` stands for the prompt.
        answers: Names and kinds of the fields of an answer.
        weights: Weights by field name; fields that are not named weigh 1, and texts have no weight.
    """

    text: str
    answers: tuple[tuple[str, Field], ...] = (("score", Whole("From 0, the worst, to 10, the best.")),)
    weights: tuple[tuple[str, float], ...] = ()
    name = "own"

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        """Scores of the lowest and highest answers."""
        weights, low, high = dict(self.weights), 0.0, 0.0
        for name, field in self.answers:
            if not isinstance(field, Text):
                ends = (field.low, field.high) if isinstance(field, Whole) else (0, 1)
                weighted = [weights.get(name, 1.0) * end for end in ends]
                low, high = low + min(weighted), high + max(weighted)
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
    """Find a rubric by its name, or read it from a file by its path.

    Raises:
        RollflowError: If the name is unknown, or the file cannot be read.
    """
    if Path(text).suffix.lower() in SUFFIXES:
        return read_rubric(Path(text))
    try:
        return RUBRICS.make(text)
    except RollflowError as error:
        raise RollflowError(f"{error}; or give the path of a file ({', '.join(SUFFIXES)})") from None


def read_rubric(path: Path) -> OwnRubric:
    """Read a rubric from a text file, which holds only the question, or from a YAML file.

    A YAML file has a ``question``, and may have ``answers``, by name one of ``yes/no``, a range of whole numbers such
    as ``0-10``, or ``text``, and ``weights`` of these. Without answers, one score from 0 to 10 is asked for.

    Raises:
        RollflowError: If the file cannot be read, or has another form.
    """
    try:
        text = read_text(path)
        content = read_yaml(text) if path.suffix.lower() in YAML else {"question": text}
        return _rubric(content)
    except (OSError, ValueError) as error:
        raise RollflowError(f"cannot read rubric '{path}': {error}") from error


def _rubric(content: Any) -> OwnRubric:
    if not isinstance(content, dict) or set(content) - PARTS:
        raise ValueError(f"expected the keys question, answers and weights, not {content!r:.100}")
    question, answers, weights = content.get("question"), content.get("answers"), content.get("weights", {})
    if not isinstance(question, str) or not question.strip():
        raise ValueError("it has no question")
    if answers is None:
        answers = {"score": "0-10"}
    if not isinstance(answers, dict) or not isinstance(weights, dict):
        raise ValueError("answers and weights must be given by name, such as 'score: 0-10'")
    fields = tuple((str(name), _field(str(name), str(kind))) for name, kind in answers.items())
    counted = {name for name, field in fields if not isinstance(field, Text)}
    if not counted:
        raise ValueError("no answer has a number; at least one must be yes/no or a range such as 0-10")
    for name, weight in weights.items():
        if name not in counted or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"weight {name}: {weight!r} must be a number, for an answer that has a number")
    return OwnRubric(question.strip(), fields, tuple((name, float(weight)) for name, weight in weights.items()))


def _field(name: str, kind: str) -> Field:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' cannot be the name of an answer; use letters, digits and _")
    says = name.replace("_", " ")
    if kind == "text":
        return Text(says)
    if kind == "yes/no":
        return YesNo(says)
    match = _RANGE.fullmatch(kind)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"answer {name}: expected yes/no, text or a range such as 0-10, not '{kind}'")
    return Whole(says, int(match[1]), int(match[2]))
