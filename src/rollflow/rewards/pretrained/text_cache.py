"""A cache of what networks compute from texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import TypeVar

T = TypeVar("T")

KEPT = 4096
"""Largest number of cached texts; with embeddings of 1024 numbers they take 16 MB."""


def cached(make: Callable[[str], T]) -> Callable[[str], T]:
    """Cache the results of ``make``, which must depend on the text alone, for the last ``KEPT`` texts.

    Only one thread at a time calls ``make``, since tokenizers do not support several.
    """
    stored, lock = lru_cache(KEPT)(make), Lock()

    def answer(text: str) -> T:
        with lock:
            return stored(str(text))  # drops the counts of a Prompt, which may be of any size

    return answer
