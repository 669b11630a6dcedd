"""Texts that are kept are the last ones, and nothing of them but themselves."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_vqa
import torch

from rollflow.prompts import Prompt
from rollflow.rewards.pretrained import text_cache
from rollflow.rewards.vqa.visual_question import reader


@pytest.fixture(params=["cached", "reader"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """What remembers two texts."""
    monkeypatch.setattr(text_cache, "KEPT", 2)
    if request.param == "cached":
        return text_cache.cached(lambda text: torch.tensor([len(text)]))
    tiny_vqa.tokenizer(["a", "b", "c"]).save_pretrained(tmp_path)
    return reader(str(tmp_path), torch.device("cpu"))


def test_the_last_texts_are_made_once(made: Callable[[str], Any]) -> None:
    a, b = made("a"), made("b")
    assert made("a") is a
    made("c")
    assert made("a") is a
    assert made("b") is not b
    assert torch.equal(made("b"), b)


def test_what_a_prompt_asks_for_is_not_kept(made: Callable[[str], Any]) -> None:
    prompt = Prompt("a", {"dog": 2})
    answer, prompt_lives = made(prompt), weakref.ref(prompt)
    assert made("a") is answer
    del prompt
    assert prompt_lives() is None
