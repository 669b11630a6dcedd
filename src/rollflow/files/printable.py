"""Text of unknown origin, made safe to print."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # escape sequences begin with one of these; tabs and line ends are kept
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # marks that change the direction of writing
    "\ud800-\udfff]"  # surrogates, which no encoding accepts
)


def printable(text: str) -> str:
    """Return a text with its control characters escaped, as ``\\x1b``; tabs and line ends are kept.

    A terminal obeys control characters: they move the cursor, rename the window or hide what was printed. Characters
    that change the direction of writing make one text look like another.
    """
    return _CONTROLS.sub(lambda match: _escaped(ord(match[0])), text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
