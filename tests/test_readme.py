"""The README's Python blocks run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_is_one_block_for_one_sample_and_one_for_many() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["generate", "engine"])
def test_block_runs_within_its_budget(block: str) -> None:
    names: dict[str, Any] = {}
    exec(block, names)
    results = names.get("results") or [names["result"]]
    for result in results:
        assert result.sample.shape == (3, 64, 64)
        assert 0 < result.spent.nfe <= result.job.nfe
        assert set(result.held_out) == {"judge"}
