"""The closed prompt language of the embedded models: the contents of a scene, and how to describe them.

Grammar (words in any case, commas ignored, ``[...]`` optional, ``|`` alternatives)::

    prompt     = group [ relation group | "and" group ] [ "on" ["a" | "an" | "the"] background ["background"] ]
    group      = count kind
    count      = "a" | "an" | "one" | "two" | ... | "eight" | "1" | ... | "8"
    kind       = one of KINDS, singular or plural
    relation   = ["to" "the"] ("left" | "right") "of"  |  "above"  |  "below"
    background = one of BACKGROUNDS                      (grass where none is named)
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from dataclasses import dataclass

from rollflow.errors import BadSetting

KINDS: dict[str, str] = {
    "airplane": "airplanes",
    "apple": "apples",
    "balloon": "balloons",
    "boat": "boats",
    "camel": "camels",
    "car": "cars",
    "cat": "cats",
    "dog": "dogs",
    "donut": "donuts",
    "fish": "fish",
    "flower": "flowers",
    "heart": "hearts",
    "house": "houses",
    "mushroom": "mushrooms",
    "star": "stars",
    "tree": "trees",
}
"""Plurals of all kinds of objects by their singulars; a kind's position in this order is its class index everywhere."""

BACKGROUNDS: tuple[str, ...] = ("grass", "snow", "sky", "night", "sand", "candy")
RELATIONS: tuple[str, ...] = ("and", "left of", "right of", "above", "below")
COUNT_WORDS: tuple[str, ...] = ("one", "two", "three", "four", "five", "six", "seven", "eight")
NO_GROUP = 36
VOCABULARY_SIZE = 37

_KIND_OF_WORD = {word: kind for kind, plural in KINDS.items() for word in (kind, plural)}
_COUNT_OF_WORD = {
    **{word: n for n, word in enumerate(COUNT_WORDS, 1)},
    **{str(n): n for n in range(1, 9)},
    "a": 1,
    "an": 1,
}
_FILLERS = ("to", "the", "of", "on", "and", "left", "right", "above", "below", "background")
_VOCABULARY = frozenset((*_KIND_OF_WORD, *_COUNT_OF_WORD, *_FILLERS, *BACKGROUNDS))


class PromptError(BadSetting):
    """A prompt outside the scenes grammar; the message names the word and what was expected."""


@dataclass(frozen=True)
class Group:
    """Several objects of one kind.

    Args:
        count: Number of objects, 1 to 8.
        kind: Kind of the objects, a key of ``KINDS``.
    """

    count: int
    kind: str

    def __str__(self) -> str:
        return f"{COUNT_WORDS[self.count - 1]} {self.kind if self.count == 1 else KINDS[self.kind]}"


@dataclass(frozen=True)
class Caption:
    """A parsed prompt: one or two groups, the relation of the first to the second, and a background.

    Args:
        groups: One or two groups of different kinds.
        relation: One of ``RELATIONS``; ``"and"`` makes no spatial claim, and is used for a single group.
        background: One of ``BACKGROUNDS``.
    """

    groups: tuple[Group, ...]
    relation: str = "and"
    background: str = "grass"

    @property
    def total(self) -> int:
        """Total number of objects."""
        return sum(group.count for group in self.groups)

    @property
    def held_out(self) -> bool:
        """Whether the caption belongs to the tenth of all captions, chosen by hash, that is never trained on."""
        return hashlib.sha256(str(self).encode()).digest()[0] % 10 == 0

    def counts(self) -> dict[str, int]:
        """Number of objects by kind."""
        return {group.kind: group.count for group in self.groups}

    def tokens(self) -> list[int]:
        """Tokens for the flow model: count, kind, count, kind, relation, background (0 is its null token)."""
        words: list[int] = []
        for group in self.groups:
            words += [group.count, 9 + tuple(KINDS).index(group.kind)]
        words += [NO_GROUP] * (4 - len(words))
        return [*words, 25 + RELATIONS.index(self.relation), 30 + BACKGROUNDS.index(self.background)]

    def __str__(self) -> str:
        joiner = f" to the {self.relation} " if "of" in self.relation else f" {self.relation} "
        return f"{joiner.join(map(str, self.groups))} on {self.background} background"


class _Reader:
    """A reader of a prompt's words from left to right."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.words = prompt.lower().replace(",", " ").replace(".", " ").split()
        self.at = 0

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self, *choices: str) -> str:
        """Consume and return the next word if it is one of ``choices``, else return the empty string."""
        word = self.peek()
        if word not in choices:
            return ""
        self.at += 1
        return word

    def expect(self, what: str, choices: tuple[str, ...]) -> str:
        word = self.take(*choices)
        if not word:
            got = f"'{self.peek()}'" if self.peek() else "the end of the prompt"
            raise PromptError(f"expected {what} but got {got} in '{self.prompt}'; choose one of: {', '.join(choices)}")
        return word

    def group(self) -> Group:
        count = _COUNT_OF_WORD[self.expect("a count", tuple(_COUNT_OF_WORD))]
        if self.peek() not in _KIND_OF_WORD:  # the error lists each kind once, without its plural
            self.expect("an object", tuple(KINDS))
        return Group(count, _KIND_OF_WORD[self.take(*_KIND_OF_WORD)])

    def relation(self) -> str:
        if word := self.take("and", "above", "below"):
            return word
        if self.take("to"):
            self.expect("'the'", ("the",))
            side = self.expect("a side", ("left", "right"))
        else:
            side = self.take("left", "right")
        if side:
            self.expect("'of'", ("of",))
            return f"{side} of"
        return ""


def parse(prompt: str) -> Caption:
    """Parse a prompt by the grammar at the top of this module.

    Raises:
        PromptError: If the prompt is empty, has a word outside the vocabulary (the message suggests similar ones),
            does not follow the grammar, or asks for the same kind twice.
    """
    return _parsed(str(prompt))


@functools.lru_cache(maxsize=4096)  # rewards parse the prompt of every sample
def _parsed(prompt: str) -> Caption:
    reader = _Reader(prompt)
    if not reader.words:
        raise PromptError("the prompt is empty; try 'three cats to the left of two cars on grass background'")
    for word in reader.words:
        if word not in _VOCABULARY:
            near = difflib.get_close_matches(word, sorted(_VOCABULARY), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"objects: {', '.join(KINDS)}"
            raise PromptError(f"'{word}' is not in the vocabulary of the scenes models; {hint}")
    groups = [reader.group()]
    relation = reader.relation()
    if relation:
        groups.append(reader.group())
    background = "grass"
    if reader.take("on"):
        reader.take("a", "an", "the")
        background = reader.expect("a background", BACKGROUNDS)
        reader.take("background")
    if reader.peek():
        raise PromptError(
            f"unexpected '{reader.peek()}' at word {reader.at + 1} of '{prompt}'; the form is "
            "'COUNT OBJECT [RELATION COUNT OBJECT] on BACKGROUND background'"
        )
    if len(groups) == 2 and groups[0].kind == groups[1].kind:
        raise PromptError(f"'{groups[0].kind}' occurs twice in '{prompt}'; the two groups must be of different kinds")
    return Caption(tuple(groups), relation or "and", background)
