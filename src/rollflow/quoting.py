"""Quotation marks in the text of a choice, for values with commas, semicolons, parentheses or spaces at an end.

A value that begins with ``'`` or ``"`` ends with the same mark; twice the mark within it stands for the mark itself, as
in CSV. There are no other escapes, so that paths of Windows can be written. Anywhere else the marks are plain letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rollflow.errors import BadSetting

_OPENED = re.compile(r"(^|=)\s*['\"]")
"""A mark that would be read as the first of a value."""

_MARKS = "'\""


def letters(text: str, *, fresh: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each letter, and whether it is within quotation marks.

    Args:
        text: Text to read.
        fresh: Whether a value begins at its start; values also begin behind ``=`` and ``;``.

    Raises:
        BadSetting: If a quotation mark is not closed.
    """
    mark = closed = ""
    for letter in text:
        if mark:
            yield letter, True
            if letter == mark:
                mark, closed = "", mark
        elif letter == closed or (fresh and letter in _MARKS):  # the first of these is a mark within marks
            yield letter, True
            mark, closed, fresh = letter, "", False
        else:
            yield letter, False
            closed, fresh = "", letter in "=;" or (fresh and letter.isspace())
    if mark:
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise BadSetting(f"the quotation mark {mark} in {shown} is not closed; write it twice within marks")


def divided(text: str, between: str = ",", *, fresh: bool = False) -> list[str]:
    """Split a text at separators that are neither within parentheses nor within quotation marks."""
    split, depth = [""], 0
    for letter, quoted in letters(text, fresh=fresh):
        depth += 0 if quoted else (letter == "(") - (letter == ")")
        if letter == between and depth == 0 and not quoted:
            split.append("")
        else:
            split[-1] += letter
    return [part for part in split if part.strip()]


def unquoted(text: str) -> str:
    """Return a value without the marks around all of it; a text that is not quoted as a whole is unchanged."""
    stripped = text.strip()
    if stripped[:1] not in _MARKS or not stripped or not all(quoted for _, quoted in letters(stripped, fresh=True)):
        return text
    return stripped[1:-1].replace(stripped[0] * 2, stripped[0])


def quoted(text: str) -> str:
    """Return the text of a value, in quotation marks if it could not be read otherwise."""
    depth = lowest = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        lowest = min(depth, lowest)
    plain = text == text.strip() and _OPENED.search(text) is None and not {",", ";"} & set(text)
    if plain and depth == lowest == 0:
        return text
    mark = "'" if '"' in text and "'" not in text else '"'
    return f"{mark}{text.replace(mark, mark * 2)}{mark}"
