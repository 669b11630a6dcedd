"""What the tests of commands share: plots that cost nothing, since what they show is tested where they are made."""

from __future__ import annotations

import functools
import io
from typing import Any

import pytest
from matplotlib.figure import Figure

from rollflow.output import plots


@functools.cache
def _blank() -> bytes:
    """A plot of nothing, made by rollflow as the others are."""
    with plots.style():
        return plots.figure_png(Figure(figsize=(0.1, 0.1)))


@pytest.fixture(autouse=True)
def blank_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set figures up, but write a blank one in their place; a test marked ``draws`` draws."""
    if request.node.get_closest_marker("draws"):
        return
    blank = _blank()

    def savefig(self: Figure, file: io.BytesIO, **settings: Any) -> None:
        file.write(blank)

    monkeypatch.setattr(Figure, "savefig", savefig)
