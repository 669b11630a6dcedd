"""The counts that a prompt asks for: given with it, or read from its words by a rule."""

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
"""Number words and their values."""

ENDS = frozenset(
    re.findall(
        r"\w+",
        "a above an and are around as at atop behind below beneath beside between beyond by doing during each flying "
        "for from having he her his holding in inside into is it its near next of off on onto or out outside over "
        "parked playing she sit sitting sleeping stand standing swimming that the their them there they through to "
        "together toward towards under underneath up upon walking was were which while who with within without",
    )
)
"""Words that end the name of a counted thing."""

PICTURES = frozenset(
    re.findall(r"\w+", "drawing illustration image painting photo photograph picture portrait render rendering sketch")
)
"""Words for the picture itself; followed by "of", they are not counted."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class Prompt(str):
    """A prompt with explicit counts; in every other respect a string.

    Args:
        text: Text of the prompt.
        ask: Requested number of each thing, by its name in the singular; 0 excludes a thing.

    Raises:
        BadSetting: If the text is not a string, a count is negative, or a thing has no name.
    """

    ask: Mapping[str, int]

    def __new__(cls, text: str, ask: Mapping[str, int]) -> Prompt:
        counts: dict[str, int] = {}
        for thing, count in checks.instance("ask", ask, Mapping, what="counts by the names of things").items():
            name = checks.text("a name in ask", thing, what="the name of a thing to count")
            counts[name] = checks.whole(f"the count of '{name}' in ask", count, at_least=0)
        prompt = super().__new__(cls, checks.instance("the prompt", text, str, what="a string"))
        prompt.ask = counts
        return prompt

    def __reduce__(self) -> tuple[type[Prompt], tuple[str, dict[str, int]]]:
        return Prompt, (str(self), dict(self.ask))


def read_ask(parts: list[str]) -> dict[str, int]:
    """Parse counts such as ``["airplanes=6", "camels=7"]`` to numbers by the singular of each name.

    Plurals are converted to the singular, except names whose last word has a capital letter.

    Raises:
        BadSetting: If a part does not have this form, or a thing occurs twice.
    """
    asked: dict[str, int] = {}
    parts_by_name: dict[str, str] = {}
    for part in parts:
        thing, _, count = part.partition("=")
        words = thing.split()
        if not words or _numeral(count.strip()) is None:
            raise BadSetting(f"expected THING=COUNT, such as airplanes=6, not '{part}'")
        name = " ".join(words)
        name = singular(name) if words[-1].islower() else name
        if name.lower() in parts_by_name:
            raise BadSetting(f"'{parts_by_name[name.lower()]}' and '{part}' both count '{name}'; give each thing once")
        parts_by_name[name.lower()], asked[name] = part, int(count)
    return asked


def asked(prompt: str) -> dict[str, int]:
    """Return the counts that a prompt asks for: those given with it, or those read from its words.

    The rule: a number (a numeral, or a word from ``NUMBERS``) counts the words after it, up to five of them, until one
    of ``ENDS``, another number or a punctuation mark; the last of these words is converted to the singular. "no" counts
    zero. Counts of the same thing are added up. A word from ``PICTURES`` followed by "of" is not counted. For example,
    "a photo of six airplanes and seven red camels in a desert" asks for {airplane: 6, red camel: 7, desert: 1}. If the
    rule reads too much, give the counts explicitly.
    """
    if isinstance(prompt, Prompt):
        return dict(prompt.ask)
    counts: dict[str, int] = {}
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
                counts[name] = counts.get(name, 0) + count
    return counts


def _numeral(word: str) -> int | None:
    """Value of a numeral of at most nine digits; None for longer ones and for other words."""
    return int(word) if word.isdecimal() and len(word) <= 9 else None


def _thing(words: Sequence[str]) -> list[str]:
    """The words after a number that name the counted thing."""
    ends = (i for i, word in enumerate(words) if word in ENDS or word in NUMBERS or word.isdecimal())
    return list(words[: min(next(ends, 5), 5)])
