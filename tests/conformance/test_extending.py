"""The pages on how to add things: their package works as they say, found by path and by entry point."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.tiny import registered  # noqa: F401

from rollflow.cli import main
from rollflow.dynamics.kernels import KERNELS
from rollflow.models import MODELS
from rollflow.rewards import REWARDS
from rollflow.search import SEARCHES
from rollflow.testing import KernelSuite, ModelSuite, RewardSuite, SearchSuite

PAGES = {page.stem: page.read_text() for page in (Path(__file__).parents[2] / "docs/extending").glob("*.md")}
FILES = {
    path: code for page in PAGES.values() for path, code in re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.S)
}
ENTRY_POINTS = re.compile(r'\[project\.entry-points\."(.+)"\]\n(.+) = "(.+)"')
COMMANDS = [
    shlex.split(command.replace("\\\n", ""))
    for page in PAGES.values()
    for command in re.findall(r"^    (rollflow (?:.*\\\n)*.*)", page, re.M)
]
CHOICES: list[tuple[str, str, Any]] = [
    ("--model", "model", MODELS),
    ("--reward", "reward_name", REWARDS),
    ("--method", "method", SEARCHES),
    ("--kernel", "kernel", KERNELS),
]
"""Options, what tells of them in ``result.json``, and where they are looked up."""


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package of the pages, as pip would install it, and its tests beside it."""
    site = tmp_path_factory.mktemp("site")
    for path, code in {**FILES, "mypackage/__init__.py": ""}.items():
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_text(code)
    metadata = site / "mypackage-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    points = [f"[{group}]\n{name} = {at}\n" for group, name, at in ENTRY_POINTS.findall(PAGES["README"])]
    (metadata / "entry_points.txt").write_text("\n".join(points))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield site
    for module in [name for name in sys.modules if name.partition(".")[0] == "mypackage"]:
        del sys.modules[module]
    importlib.invalidate_caches()


class Tally:
    """Counts what became of tests, by method."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.methods: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.outcomes[report.outcome] += 1
            self.methods.add(report.nodeid.rpartition("::")[2].partition("[")[0])


@pytest.mark.parametrize(
    ("example", "suite", "skipped"),
    [
        ("relaxed", SearchSuite, 0),
        ("overshoot", KernelSuite, 2),
        ("swatches", ModelSuite, 0),
        ("brightness", RewardSuite, 0),
    ],
)
@pytest.mark.slow
def test_the_suite_passes(example: str, suite: Any, skipped: int, installed: Path) -> None:
    """Every test of it, in a pytest of its own; the law of a kernel is measured at its default settings alone."""
    tally, plugins = Tally(), ("cacheprovider", "faulthandler", "hypothesispytest")
    options = ["-q", "-s", "-W", "error", "--import-mode=importlib", *(f"-pno:{plugin}" for plugin in plugins)]
    assert pytest.main([str(installed / f"tests/test_{example}.py"), *options], plugins=[tally]) == 0
    assert tally.outcomes["skipped"] == skipped
    assert tally.methods == {name for name in vars(suite) if name.startswith("test_")}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.slow
def test_commands_do_what_they_say(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a tiny model in place of the embedded one, where they name none."""
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    if command[1] != "generate" or "--dry-run" in command:
        assert list(tmp_path.iterdir()) == []
        return
    content, said = json.loads(Path("rollflow-out/result.json").read_text()), dict(pairwise(command))
    assert 0 < content["nfe_used"] <= int(said["--nfe"])
    for option, key, registry in CHOICES:
        if option in said:
            kind = registry.find(said[option])
            assert content[key].partition("(")[0] in (kind.__name__, getattr(kind, "name", None))


def test_settings_are_read_by_their_annotations() -> None:
    assert repr(SEARCHES.make("relaxed", {"epsilon": "0.3"})) == "Relaxed(epsilon=0.3)"
    assert repr(KERNELS.make("mypackage.kernels:Overshoot(strength=0.8)")) == "Overshoot(strength=0.8)"


@pytest.mark.parametrize(
    ("registry", "command", "name", "path", "line"),
    [
        (
            SEARCHES,
            "methods",
            "relaxed",
            "mypackage.searches:Relaxed",
            "Continue at every step with the best of M children",
        ),
        (MODELS, "models", "swatches", "mypackage.models:Swatches", "plain colours"),
        (REWARDS, "rewards", "brightness", "mypackage.rewards:Brightness", "mean of all pixels"),
    ],
    ids=["search", "model", "reward"],
)
def test_entry_points_are_found(
    registry: Any, command: str, name: str, path: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert registry.find(name) is registry.find(path)
    assert name not in registry
    assert main([command]) == 0
    assert re.search(f"^{name} +{line}", capsys.readouterr().out, re.M)


def test_every_page_says_the_same_of_entry_points() -> None:
    of_all = ENTRY_POINTS.findall(PAGES["README"])
    assert len(of_all) == 3
    of_pages = [point for name, page in PAGES.items() if name != "README" for point in ENTRY_POINTS.findall(page)]
    assert sorted(of_pages) == sorted(of_all)


def test_every_page_has_an_example_its_suite_and_a_command() -> None:
    assert set(PAGES) == {"README", "search", "kernel", "model", "reward"}
    assert {path.partition("/")[0] for path in FILES} == {"mypackage", "tests"}
    assert len(FILES) == 2 * (len(PAGES) - 1) + 1, "a reward may also be a function"
    assert all(re.search("^    rollflow generate", page, re.M) for page in PAGES.values())
