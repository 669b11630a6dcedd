"""What a prompt asks for, in numbers: given with it, or read from its words by a rule."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rollflow import checks
from rollflow.errors import BadSetting
from rollflow.prompts.plurals import singular

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

PICTURES = frozenset(
    re.findall(r"\w+", "drawing illustration image painting photo photograph picture portrait render rendering sketch")
)
"""What a prompt calls the picture itself, where "of" follows: such a thing is not counted."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class Prompt(str):
    """A prompt that says what it asks for; in all else the text that it is.

    Args:
        text: What is to be made.
        ask: How many of each thing, by the name of one of them; 0 is a thing that must not be there.

    Raises:
        BadSetting: On a text that is none, a count below 0 or a thing without a name.
    """

    ask: Mapping[str, int]

    def __new__(cls, text: str, ask: Mapping[str, int]) -> Prompt:
        given: dict[str, int] = {}
        for thing, count in checks.instance("ask", ask, Mapping, what="counts by the names of things").items():
            name = checks.text("a thing in ask", thing, what="the name of a thing")
            given[name] = checks.whole(f"the count of '{name}' in ask", count, at_least=0)
        prompt = super().__new__(cls, checks.instance("the prompt", text, str, what="a text"))
        prompt.ask = given
        return prompt

    def __reduce__(self) -> tuple[type[Prompt], tuple[str, dict[str, int]]]:
        return Prompt, (str(self), dict(self.ask))


def read_ask(parts: list[str]) -> dict[str, int]:
    """``["airplanes=6", "camels=7"]`` as counts by the name of one thing.

    A plural is put into the singular, unless its last word has a capital letter: such a name stays as it is given.

    Raises:
        BadSetting: If a part is not of that form, or two are of one thing.
    """
    asked: dict[str, int] = {}
    given: dict[str, str] = {}
    for part in parts:
        thing, _, count = part.partition("=")
        words = thing.split()
        if not words or _numeral(count.strip()) is None:
            raise BadSetting(f"expected THING=COUNT, such as airplanes=6, not '{part}'")
        name = " ".join(words)
        name = singular(name) if words[-1].islower() else name
        if name.lower() in given:
            raise BadSetting(f"'{given[name.lower()]}' and '{part}' are both of '{name}'; give each thing once")
        given[name.lower()], asked[name] = part, int(count)
    return asked


def asked(prompt: str) -> dict[str, int]:
    """What a prompt asks for: what was given with it, else what is read from its words.

    The rule: a number (a numeral, or a word from ``NUMBERS``) counts the words behind it, up to five of them, which end
    at one of ``ENDS``, at another number, or at a mark of punctuation; the last of them is put into the singular. "no"
    counts zero. The same thing counted twice is added up. One of ``PICTURES`` "of" something is not a thing. "a photo
    of six airplanes and seven red camels in a desert" asks for {airplane: 6, red camel: 7, desert: 1}: give what is
    meant where the rule reads too much.
    """
    if isinstance(prompt, Prompt):
        return dict(prompt.ask)
    found: dict[str, int] = {}
    for clause in re.split(r"[^\w\s'-]+", _THOUSANDS.sub("", prompt.lower())):
        words = clause.split()
        for i, word in enumerate(words):
            count = NUMBERS.get(word, _numeral(word))
            if count is None:
                continue
            thing = _thing(words[i + 1 :])
            after = words[i + 1 + len(thing) :]
            if thing and not (count == 1 and thing[-1] in PICTURES and after[:1] == ["of"]):
                name = singular(" ".join(thing))
                found[name] = found.get(name, 0) + count
    return found


def _numeral(word: str) -> int | None:
    """The number that a numeral of at most nine digits stands for; longer ones count nothing."""
    return int(word) if word.isdecimal() and len(word) <= 9 else None


def _thing(words: Sequence[str]) -> list[str]:
    """The words, behind a number, that name what it counts."""
    ends = (i for i, word in enumerate(words) if word in ENDS or word in NUMBERS or word.isdecimal())
    return list(words[: min(next(ends, 5), 5)])
