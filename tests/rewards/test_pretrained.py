"""Where the hub has no address, what is missing is told at once."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from rollflow.errors import RollflowError
from rollflow.rewards.clip.clipscore import CLIPScore
from rollflow.rewards.pretrained import base


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name can be resolved, and nothing is in the cache."""

    def unknown(*_: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(base, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


def loads(*names: Any) -> str:
    return f"loaded {names[0]}"


def test_what_is_not_in_the_cache_is_told_without_trying() -> None:
    with pytest.raises(
        RollflowError, match=r"'owner/name': it is not in the cache and huggingface\.co cannot be"
    ) as told:
        CLIPScore().loaded(loads, "owner/name")
    assert "checkpoint=" in str(told.value)


def test_all_else_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = CLIPScore()
    (tmp_path / "models--owner--cached").mkdir()
    for name in ("owner/cached", str(tmp_path), tmp_path):
        assert reward.loaded(loads, name) == f"loaded {name}"
    monkeypatch.setattr(base, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert reward.loaded(loads, "owner/name") == "loaded owner/name"
    monkeypatch.setattr(base, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert reward.loaded(loads, "owner/name") == "loaded owner/name"
