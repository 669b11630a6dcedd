"""What is told of every reward before it is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rollflow.cli import main
from rollflow.rewards import REWARDS


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.slow
def test_every_reward_says_what_it_needs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = REWARDS[name].card
    assert card is not None
    assert all(card)
    assert main(["rewards", "--verbose"]) == 0
    told = capsys.readouterr().out.partition(f"\n{name}(")[2].partition("\n\n")[0]
    for label, value in {**card._asdict(), "differentiable": "yes" if REWARDS[name].differentiable else "no"}.items():
        assert any(line.split(maxsplit=1) == [label, value] for line in told.splitlines())


@pytest.mark.subprocess
def test_listing_them_loads_no_network_library() -> None:
    code = "import sys, rollflow.rewards; print(*{'transformers', 'httpx', 'fastapi', 'diffusers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
