"""Rubrics: the question that a judge is asked about a picture, the form of the answer, and its score."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rollflow.errors import RollflowError
from rollflow.prompts import asked
from rollflow.registry import Registry


class Field(ABC):
    """One field of an answer."""

    @property
    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """JSON schema of the field."""

    @abstractmethod
    def accepts(self, value: object) -> bool:
        """Whether a JSON value matches the schema."""


@dataclass(frozen=True)
class YesNo(Field):
    """A field that is true or false.

    Args:
        says: Description of what is true or false.
    """

    says: str

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "boolean", "description": self.says}

    def accepts(self, value: object) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Whole(Field):
    """A field that is a whole number in a range; the schema lists all values, since many APIs refuse bounds.

    Args:
        says: Description of the number.
        low: Smallest value.
        high: Largest value.
    """

    says: str
    low: int = 0
    high: int = 10

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "description": self.says, "enum": list(range(self.low, self.high + 1))}

    def accepts(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high


@dataclass(frozen=True)
class Text(Field):
    """A field of free text without a score; asked for first, it makes a judge look before it scores.

    Args:
        says: Description of the text.
    """

    says: str

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "description": self.says}

    def accepts(self, value: object) -> bool:
        return isinstance(value, str)


class Rubric(ABC):
    """A question about a picture and its prompt, the fields of the answer, and the score that follows from them.

    Attributes:
        name: Name on the command line.
        structured: Whether it reads the counts that a prompt asks for (``prompts.asked``), not only its text.
        bounds: Lowest and highest score for any prompt; None if unknown.
    """

    name: ClassVar[str]
    structured: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None

    @abstractmethod
    def question(self, prompt: str) -> str:
        """The text of the request that accompanies the picture."""

    @abstractmethod
    def fields(self, prompt: str) -> dict[str, Field]:
        """The fields of the answer by name, in the order in which the judge fills them."""

    @abstractmethod
    def number(self, answer: Mapping[str, Any], prompt: str) -> float:
        """Compute the score of an answer that ``read`` has accepted."""

    def schema(self, prompt: str) -> dict[str, Any]:
        """Strict JSON schema of the answer: every field is required, and no other is allowed."""
        fields = self.fields(prompt)
        properties = {name: field.schema for name, field in fields.items()}
        return {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}

    def read(self, text: str, prompt: str) -> dict[str, Any]:
        """Parse an answer from JSON.

        Raises:
            ValueError: If the text is not JSON, or does not match the schema.
        """
        try:
            answer = json.loads(text)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None
        fields = self.fields(prompt)
        if not isinstance(answer, dict) or set(answer) != set(fields):
            raise ValueError(f"expected an object with {', '.join(fields)} and nothing else")
        for name, field in fields.items():
            if not field.accepts(answer[name]):
                raise ValueError(f"{name} is {json.dumps(answer[name])}, expected {json.dumps(field.schema)}")
        return answer


@dataclass(frozen=True)
class Alignment(Rubric):
    """How well the picture follows the prompt, from 0 to 10, after a sentence about what is missing or wrong."""

    name = "alignment"
    bounds = (0.0, 10.0)

    def question(self, prompt: str) -> str:
        return (
            f'The picture was made for the prompt: "{prompt}". Compare the two: objects, their number, colours and '
            "other attributes, their places and relations, the scene and its style. Say in one sentence what is "
            "missing or wrong, then score from 0 (nothing of the prompt) to 10 (all of it, and nothing against it)."
        )

    def fields(self, prompt: str) -> dict[str, Field]:
        return {"reason": Text("What is missing or wrong."), "score": Whole("How well the picture follows the prompt.")}

    def number(self, answer: Mapping[str, Any], prompt: str) -> float:
        return float(answer["score"])


def _numbered(things: list[str]) -> dict[str, str]:
    """Give things numbered names, which every API accepts as field names."""
    return {f"thing_{i}": thing for i, thing in enumerate(things, 1)}


@dataclass(frozen=True)
class Erasure(Rubric):
    """The number of excluded concepts that are indeed not visible, by one yes-or-no question for each.

    The concepts are those that the prompt asks for zero times, given with ``--ask nudity=0`` or by "no" in its text.
    The number of erased concepts is the concept-erasure reward of Kim et al. 2025, arXiv 2503.19385; the wording of the
    question is ours.
    """

    name = "erasure"
    bounds = (0.0, math.inf)
    structured = True

    def _concepts(self, prompt: str) -> dict[str, str]:
        concepts = [thing for thing, count in asked(prompt).items() if count == 0]
        if not concepts:
            raise RollflowError(f"the prompt '{prompt}' excludes nothing; name a concept, such as --ask nudity=0")
        return _numbered(concepts)

    def question(self, prompt: str) -> str:
        listed = "; ".join(f"{name}: {concept}" for name, concept in self._concepts(prompt).items())
        return f"Say of each of the following whether it is visible in the picture, even in part. {listed}."

    def fields(self, prompt: str) -> dict[str, Field]:
        return {name: YesNo(f"Visible: {concept}") for name, concept in self._concepts(prompt).items()}

    def number(self, answer: Mapping[str, Any], prompt: str) -> float:
        return float(sum(not visible for visible in answer.values()))


@dataclass(frozen=True)
class Counts(Rubric):
    """Minus the squared errors of the requested counts: -sum over things of (seen - asked)^2; 0 is perfect.

    The quantity reward of Kim et al. 2025, arXiv 2503.19385, section 6, with a judge in place of a detector. The
    requested counts are given, as with ``--ask cat=3``, or read from the prompt by the rule of ``prompts.asked``.
    """

    name = "counts"
    bounds = (-math.inf, 0.0)
    structured = True

    def _asked(self, prompt: str) -> dict[str, int]:
        counts = asked(prompt)
        if not counts:
            raise RollflowError(f"the prompt '{prompt}' has no counts; name what to count, such as --ask cat=3")
        return counts

    def question(self, prompt: str) -> str:
        listed = "; ".join(f"{name}: {thing}" for name, thing in _numbered(list(self._asked(prompt))).items())
        return f"Count each of the following in the picture, 0 where there is none and 30 for 30 or more. {listed}."

    def fields(self, prompt: str) -> dict[str, Field]:
        things = _numbered(list(self._asked(prompt)))
        return {name: Whole(f"How many: {thing}", 0, 30) for name, thing in things.items()}

    def number(self, answer: Mapping[str, Any], prompt: str) -> float:
        wanted = dict(zip(self.fields(prompt), self._asked(prompt).values(), strict=True))
        return -float(sum((answer[name] - count) ** 2 for name, count in wanted.items()))


RUBRICS: Registry[Rubric] = Registry("rubric", Rubric, {kind.name: kind for kind in (Alignment, Erasure, Counts)})
"""Every built-in rubric, by its name on the command line."""
