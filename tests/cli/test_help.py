"""The help: options in titled groups, values in words, and the names that can be chosen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from rollflow.cli import main
from rollflow.cli.help import _CHOICES, _KINDS, _PANELS
from rollflow.dynamics.grids import GRIDS
from rollflow.dynamics.guidance import GUIDANCE
from rollflow.dynamics.interpolants import INTERPOLANTS
from rollflow.dynamics.kernels import KERNELS
from rollflow.dynamics.lookahead import LOOKAHEADS
from rollflow.models import PipelineSource, find_model
from rollflow.models.diffusers import read_argument, source
from rollflow.quoting import quoted
from rollflow.rewards import REWARDS
from rollflow.rewards.clip.style import Style
from rollflow.search import SEARCHES

COMMANDS = [
    ["generate"],
    ["score"],
    ["methods"],
    ["models"],
    ["rewards"],
    ["serve-reward"],
    ["replay"],
    ["report"],
    ["compare"],
    *(
        ["bench", name]
        for name in ("grade", "diversity", "mixture", "profile", "composition", "recorded", "searches", "run", "pack")
    ),
]


def shown(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, str]:
    """The sections of a command's help by title."""
    assert main([*command, "--help"]) == 0
    parts = re.split(r"^(\w[\w ]*):\n", capsys.readouterr().out, flags=re.M)
    return dict(zip(parts[1::2], (" ".join(part.split()) for part in parts[2::2]), strict=True))


def test_options_are_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    groups = shown(capsys, "generate")
    assert list(groups) == ["Arguments", "Options", *_PANELS]
    for title, names in _PANELS.items():
        for name in names:
            flag = {"settings": "set", "compiled": "compile"}.get(name, name).replace("_", "-")
            assert re.search(rf"--{flag}\b", groups[title]), name
    for flag in ("--model", "--method", "--reward", "--nfe", "--seed", "--out"):
        assert flag in groups["Options"]


def test_one_option_has_no_group_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(shown(capsys, "bench", "grade")) == ["Options"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_values_are_called_in_words(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, *command).values())
    assert not re.search(r"<(str|int|float|path|bool|list|tuple)\b|\b(INTEGER|FLOAT|RANGE)\b", text), text


def test_choices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    groups = shown(capsys, "generate")
    for title, registries in (
        ("Options", (SEARCHES, REWARDS)),
        ("Sampler", (KERNELS, GRIDS, INTERPOLANTS, LOOKAHEADS, GUIDANCE)),
    ):
        for registry in registries:
            lists = re.findall(r"Known: ([^.]*(?:\.\d[^.]*)*)\.", groups[title].replace("- ", "-"))
            assert sorted(registry) in [sorted(known.split(", ")) for known in lists]


def test_completed_values_are_those_that_are_known() -> None:
    assert set(_CHOICES["dtype"]) == set(source.DTYPES)
    assert set(_CHOICES["quantize"]) == set(source.QUANTIZATIONS)
    assert set(_CHOICES["offload"]) == set(source.OFFLOADS) - {"none"}
    assert not set(_KINDS) & set(_CHOICES)


def test_a_home_folder_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "Füße, it's (1.png")
    assert main(["score", "colorfulness", "~/Füße, it's (1.png", "--prompt", "x"]) == 0
    assert "(1.png" in capsys.readouterr().out
    assert read_argument("~/Füße, it's (1.png").size == (8, 8)
    [style] = [REWARDS.make(f"style(reference={quoted(text)})") for text in ["~/Füße, it's (1.png"]]
    assert isinstance(style, Style)
    assert style.reference == str(tmp_path / "Füße, it's (1.png")
    (tmp_path / "pipeline").mkdir()
    found = find_model("~/pipeline")
    assert isinstance(found, PipelineSource)
    assert found.name == str(tmp_path / "pipeline")
