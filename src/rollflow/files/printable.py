"""Text of unknown origin, made harmless to print."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # escape sequences begin with one of these; tabs and ends of lines are left
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns the direction of the text around
    "\ud800-\udfff]"  # halves of characters, which no encoding takes
)


def printable(text: str) -> str:
    """Text with its control characters written out, as ``\\x1b``; tabs and ends of lines stay.

    A terminal obeys control characters: they move the cursor, rename the window or hide what was printed. Characters
    that turn the direction of writing around make one text look like another.
    """
    return _CONTROLS.sub(lambda match: _written_out(ord(match[0])), text)


def _written_out(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
