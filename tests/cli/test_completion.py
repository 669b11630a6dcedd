"""Shell completion: it knows the commands and options, says nothing else, and does not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rollflow.cli import main


def complete(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a shell is offered behind a line that is not finished."""
    monkeypatch.setenv("_ROLLFLOW_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return str(out).split()


def test_commands_and_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert complete("rollflow gen", monkeypatch, capsys) == ["generate"]
    assert complete("rollflow generate --loo", monkeypatch, capsys) == ["--lookahead"]
    assert complete("rollflow bench r", monkeypatch, capsys)[-1:] == ["run"]


def test_values_that_have_a_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert complete("rollflow generate --method ze", monkeypatch, capsys) == ["zero-order"]
    assert complete("rollflow generate x --kernel s", monkeypatch, capsys) == ["sde", "stochastic"]
    assert complete("rollflow generate x --reward clips", monkeypatch, capsys) == ["clipscore"]
    assert complete("rollflow generate x --quantize 8", monkeypatch, capsys) == ["8bit"]
    assert complete("rollflow bench run --held-out picks", monkeypatch, capsys) == ["pickscore"]


@pytest.mark.subprocess
def test_it_does_not_wait_for_torch() -> None:
    code = (
        "import os, sys; os.environ |= {'_ROLLFLOW_COMPLETE': 'complete_bash', 'COMP_CWORD': '4', "
        "'COMP_WORDS': 'rollflow generate x --reward clips'}; from rollflow.cli import main; main([]); "
        "sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["clipscore"]


def test_it_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    monkeypatch.setattr(sys, "argv", ["rollflow"])
    assert main(["--install-completion", "bash"]) == 0
    out, err = capsys.readouterr()
    assert "bash completion installed" in out
    assert err == ""
    [script] = (tmp_path / ".bash_completions").iterdir()
    assert "_ROLLFLOW_COMPLETE=complete_bash" in script.read_text()
