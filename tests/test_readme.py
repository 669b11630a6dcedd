"""The README's Python blocks and commands work as they stand, and its links, targets and order hold."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rollflow.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = [README, *((ROOT / f"docs/{page}.md").read_text() for page in ("quickstart", "guides/search", "guides/reward"))]
COMMANDS = [
    shlex.split(command.replace("\\\n", ""))
    for page in PAGES
    for command in re.findall(r"^    (rollflow (?:.*\\\n)*.*)", page, re.M)
]
GENERATE = [command for command in COMMANDS if command[1] == "generate" and "/" not in "".join(command)]


def test_there_is_one_block_for_one_sample_and_one_for_many() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=["generate", "engine"])
def test_block_runs_within_its_budget(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    results = names.get("results") or [names["result"]]
    for result in results:
        assert result.sample.shape == (3, 64, 64)
        assert 0 < result.spent.nfe <= result.job.nfe
        assert set(result.held_out) == {"judge"}
    saved = re.findall(r'image\.save\("(.*)"\)', block)
    assert bool(saved) == ("generate(" in block)
    for name in saved:
        with Image.open(name) as picture:
            assert picture.tobytes() == names["result"].image.tobytes()


def test_a_newcomer_finds_things_in_order() -> None:
    assert re.findall("^## (.*)", README, re.M) == [
        "Install",
        "First picture",
        "In Python",
        "With a real pipeline",
        "Choose a search and a reward",
        "Experiments",
        "Results",
        "Documentation",
        "Develop",
    ]


def test_the_demo_is_the_command_that_is_shown() -> None:
    [shown] = re.findall(r"^    (rollflow generate .*--compare)$", README, re.M)
    assert f"\t$(BIN)/{shown}\n" in (ROOT / "Makefile").read_text()


def test_ci_calls_the_test_command_first() -> None:
    """And every other target that it names exists, described by `make help`."""
    targets = dict(re.findall("^([a-z]+):.*## (.*)", (ROOT / "Makefile").read_text(), re.M))
    calls = re.findall("^make ([a-z]+)$", (ROOT / ".ci/run").read_text(), re.M)
    assert calls == ["test", "exhaustive", "lint", "docs", "examples", "wheel"]
    assert {*calls, *re.findall("make ([a-z]+)", README)} <= {*targets, "lists"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_hold(page: str) -> None:
    """Those of the site are held by its strict build."""
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall('src="([^"]+)"', text)
    missing = [link for link in links if ":" not in link and not (ROOT / link).exists()]
    assert links
    assert missing == []


@pytest.mark.parametrize("command", GENERATE, ids=" ".join)
def test_commands_can_be_run(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the embedded model; a dry run refuses what a run would."""
    monkeypatch.chdir(tmp_path)
    assert main([*command[1:], *(() if "--dry-run" in command else ("--dry-run",))]) == 0


def test_every_command_is_one_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    known = capsys.readouterr().out
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        assert re.search(rf"^  {command[1]} ", known, re.M), command


QUICK_START = re.findall(r"```python\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks in order, as they stand but for the largest budget."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in QUICK_START:
        exec(block.replace("nfe=200", "nfe=100"), names)
    assert names["result"].sample.shape == (3, 8, 8)
    assert 0 < names["result"].spent.nfe <= 100
    assert Path("a-house/trace.png").exists()
    assert Path("a-house-again/result.json").exists()
