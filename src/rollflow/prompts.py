"""What a prompt asks for, in numbers: given with it, or read from its words by a rule."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rollflow.errors import RollflowError

NUMBERS = {
    word: number
    for number, word in enumerate(
        re.findall(
            r"\w+",
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen twenty",
        )
    )
} | {"a": 1, "an": 1, "no": 0}
"""Words that count."""

ENDS = frozenset(
    re.findall(
        r"\w+",
        "a above an and are around as at atop behind below beneath beside between beyond by doing during each flying "
        "for from having he her his holding in inside into is it its near next of off on onto or out outside over "
        "parked playing she sit sitting sleeping stand standing swimming that the their them there they through to "
        "together toward towards under underneath up upon walking was were which while who with within without",
    )
)
"""Words at which the name of what is counted ends."""

IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "knives": "knife",
    "loaves": "loaf",
    "leaves": "leaf",
    "wolves": "wolf",
    "shelves": "shelf",
    "scarves": "scarf",
    "buses": "bus",
    "lenses": "lens",
    "shoes": "shoe",
    "toes": "toe",
}
UNCHANGED = ("sheep", "fish", "deer", "aircraft", "series", "glasses", "scissors", "trousers", "bus", "lens")


class Prompt(str):
    """A prompt that says what it asks for; in all else the text that it is.

    Args:
        text: What is to be made.
        ask: How many of each thing, by the name of one of them; 0 is a thing that must not be there.

    Raises:
        RollflowError: On a count below 0 or a thing without a name.
    """

    ask: Mapping[str, int]

    def __new__(cls, text: str, ask: Mapping[str, int]) -> Prompt:
        for thing, count in ask.items():
            if not thing.strip() or count < 0:
                raise RollflowError(f"expected things with counts of 0 or more, not '{thing}={count}'")
        prompt = super().__new__(cls, text)
        prompt.ask = dict(ask)
        return prompt

    def __reduce__(self) -> tuple[type[Prompt], tuple[str, dict[str, int]]]:
        return Prompt, (str(self), dict(self.ask))


def read_ask(parts: list[str]) -> dict[str, int]:
    """``["airplanes=6", "camels=7"]`` as counts by the name of one thing.

    Raises:
        RollflowError: If a part is not of that form.
    """
    asked: dict[str, int] = {}
    for part in parts:
        thing, _, count = part.partition("=")
        if not (thing.strip() and count.strip().isdecimal()):
            raise RollflowError(f"expected THING=COUNT, such as airplanes=6, not '{part}'")
        asked[singular(thing.strip())] = int(count)
    return asked


def asked(prompt: str) -> dict[str, int]:
    """What a prompt asks for: what was given with it, else what is read from its words.

    The rule: a number (a numeral, or a word from ``NUMBERS``) counts the words behind it, up to five of them, which end
    at one of ``ENDS``, at another number, or at a mark of punctuation; the last of them is put into the singular. "no"
    counts zero. The same thing counted twice is added up. "six airplanes and seven red camels in a desert" asks for
    {airplane: 6, red camel: 7, desert: 1}: give what is meant where the rule reads too much.
    """
    if isinstance(prompt, Prompt):
        return dict(prompt.ask)
    found: dict[str, int] = {}
    for clause in re.split(r"[^\w\s'-]+", prompt.lower()):
        words = clause.split()
        for i, word in enumerate(words):
            count = int(word) if word.isdecimal() else NUMBERS.get(word)
            if count is None:
                continue
            thing = []
            for following in words[i + 1 : i + 6]:
                if following in ENDS or following in NUMBERS or following.isdecimal():
                    break
                thing.append(following)
            if thing:
                name = singular(" ".join(thing))
                found[name] = found.get(name, 0) + count
    return found


def singular(thing: str) -> str:
    """The name of one of many, by the last word: "red foxes" is "red fox"."""
    first, space, word = thing.rpartition(" ")
    if word in IRREGULAR:
        word = IRREGULAR[word]
    elif word in UNCHANGED or word.endswith("ss"):
        pass
    elif len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif re.search(r"(x|ch|sh|ss|zz|[^aeou]o)es$", word):
        word = word[:-2]
    elif len(word) > 2 and word.endswith("s") and not word.endswith("us"):
        word = word[:-1]
    return first + space + word
