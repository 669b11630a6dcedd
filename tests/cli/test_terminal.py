"""What commands print may come from anyone: a terminal obeys none of it."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from rollflow.cli import main, streams
from rollflow.cli.errors import complain, warn
from rollflow.cli.tables import aligned, asked
from rollflow.prompts import Prompt
from rollflow.rewards.judges.terminal import Terminal

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\x9b1m\rx"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_errors_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"a {EVIL}\nb")
    warn(EVIL)
    err = capsys.readouterr().err
    assert not OBEYED.search(err)
    assert err.splitlines()[0] == "error: a \\x1b]0;owned\\x07\\x1b[2J\\u202e\\x9b1m x b"


def test_tables_keep_a_row_a_line() -> None:
    assert aligned([("a\nb", "c"), ("\x1b[2J", "d")]) == "a\\nb     c\n\\x1b[2J  d"
    assert not OBEYED.search(asked(Prompt(EVIL, {EVIL: 2})))


def test_standard_output_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with streams.watched():
        print(f"a\tb\n{EVIL}")
    assert capsys.readouterr().out == "a\tb\n\\x1b]0;owned\\x07\\x1b[2J\\u202e\\x9b1m\\x0dx\n"
    assert not isinstance(sys.stdout, streams._Stream)


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", EVIL, "--reward", EVIL, "--dry-run"],
        ["generate", EVIL, "--out", "out", "--nfe", "10", "--method", "bon"],
        ["generate", "a cat", "--model", EVIL, "--dry-run"],
        ["generate", "a cat", "--set", f"{EVIL}=1", "--dry-run"],
        ["score", "colorfulness", f"{EVIL}.png", "--prompt", "a"],
        ["report", EVIL],
        ["compare", EVIL, EVIL],
        ["replay", EVIL, EVIL],
        ["bench", "run", "--preset", EVIL, "--out", EVIL],
        [EVIL],
        ["report", f"--{EVIL}"],
        ["--debug", "report", EVIL],
    ],
    ids=lambda arguments: arguments[0] if arguments[0].isalpha() else "",
)
def test_arguments_and_names(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    out, err = capsys.readouterr()
    assert err
    assert not OBEYED.search(out + err)


def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{EVIL}\n.png"
    Image.new("RGB", (8, 8)).save(name)
    assert main(["score", "colorfulness", name, name, "--prompt", "a"]) == 0
    out = capsys.readouterr().out
    assert not OBEYED.search(out)
    assert len(out.splitlines()) == 2


def test_what_a_person_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Exception, match="no input to judge candidates"):
        Terminal(tmp_path, show=False).choose(EVIL, {1: torch.zeros(3, 8, 8), 2: torch.zeros(3, 8, 8)})
    assert not OBEYED.search(capsys.readouterr().err)


def test_a_terminal_of_another_encoding_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, "ascii"))
    with streams.watched():
        print("ünï.png  0.5")
    assert raw.getvalue() == b"\\xfcn\\xef.png  0.5\n"
