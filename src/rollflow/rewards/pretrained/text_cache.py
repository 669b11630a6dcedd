"""What networks make of texts, once for each of those that were last asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import TypeVar

T = TypeVar("T")

KEPT = 4096
"""Texts; of embeddings of 1024 numbers, 16 MB."""


def kept(make: Callable[[str], T]) -> Callable[[str], T]:
    """``make``, which must depend on the text alone, with its answers to the last ``KEPT`` texts.

    It is called by one thread at a time, since tokenizers refuse two.
    """
    last, one = lru_cache(KEPT)(make), Lock()

    def answer(text: str) -> T:
        with one:
            return last(str(text))  # without what a Prompt asks for, which may be of any size

    return answer
