"""What the pages say of rewards."""

from __future__ import annotations

import re
from pathlib import Path

from rollflow.rewards import REWARDS

PAGES = Path(__file__).parents[2] / "docs/rewards"


def test_held_out_judges_are_those_that_the_pages_name() -> None:
    text = " ".join(word for page in sorted(PAGES.glob("*.md")) for word in page.read_text(encoding="utf-8").split())
    told = {
        name: judge
        for names, judge in re.findall(r"[Tt]he held-out judge of ([^.]+?) is `([^`]+)`", text)
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert {"vqascore", "counting", "counting-accuracy", "aesthetic", "aesthetic-v1", "style"} <= set(told)
    for name, judge in told.items():
        assert REWARDS[name].held_out == (judge,), name
