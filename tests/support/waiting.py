"""Waiting for something in another thread or process, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds after which something counts as hanging; no test takes that long, even on a busy machine."""


def wait_until(condition: Callable[[], object], what: str = "a condition of the test") -> None:
    """Poll until a condition is true.

    Args:
        condition: Function that returns whether to stop waiting.
        what: What is awaited, for the error.

    Raises:
        AssertionError: If it has not happened within ``PATIENCE``.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.005)
