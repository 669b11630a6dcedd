"""Error messages of the command line."""

from __future__ import annotations

import pytest


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the single error line on stderr; nothing else may have been printed."""
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line
