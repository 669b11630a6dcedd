"""How the command line refuses."""

from __future__ import annotations

import pytest


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr, nothing else having been printed."""
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line
