"""Commands that are killed at random moments and resumed give the same bits and the same account, and lose nothing.

``pytest tests/faults/test_kills.py --kills 700 -s`` kills 700 times and prints what happened.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fork_server import Child, ForkServer

from rollflow.bench.run.journal import JournalIndex

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS = 0.01
"""Time that a call of the model takes."""

METHODS = {"rbf": ["--nfe", "90"], "svdd": ["--nfe", "90"], "bon": ["--nfe", "90"], "smc": ["--nfe", "90"]}
ACCOUNT = ("reward", "held_out", "nfe_used", "network_rows", "reward_calls", "decodes", "noise_level", "trace")


def kills(request: pytest.FixtureRequest, short: int, share: float) -> int:
    """Return the number of kills of a test: ``short``, or its share of the option ``--kills``."""
    total: int = request.config.getoption("--kills")
    return max(1, round(total * share)) if total else short


def result_in(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def kill_after(child: Child, seconds: float, number: int, pattern: str | None) -> int:
    """Kill a command after a time of its work; returns its exit code.

    Args:
        child: Command.
        seconds: Time until it is killed.
        number: Signal.
        pattern: Pattern of a file whose creation starts that time; None starts it at once.
    """
    if pattern is not None:
        child.until(lambda: any(child.folder.glob(pattern)) or child.poll() is not None)
    begun = time.monotonic()
    child.until(lambda: time.monotonic() - begun >= seconds or child.poll() is not None)
    child.kill(number)
    return child.wait()


def check_end(child: Child, number: int, code: int) -> None:
    """Check that a command either completed, or ended by the signal and reports that."""
    assert "Traceback" not in child.stderr
    assert "Exception ignored" not in child.stderr
    if code == 0 or code == -number:  # it had ended before, or had not begun
        return
    assert code == 128 + number, child.stderr
    name = "interrupted" if number == signal.SIGINT else f"interrupted by {signal.Signals(number).name}"
    assert child.stderr.splitlines()[-1].startswith(f"error: {name}"), child.stderr


def check_kept(child: Child, folder: Path, fresh: bool) -> str:
    """Check that an interrupted command describes its folder correctly; returns a summary."""
    if "the best sample so far is in" in child.stderr:
        content = result_in(folder)
        assert content["interrupted"]
        assert content["reward"] == max(reward for _, reward in content["trace"])
        assert (folder / "image.png").read_bytes().startswith(b"\x89PNG")
        assert ("continue with --resume" in child.stderr) == (folder / "checkpoint.pt").exists(), child.stderr
        return "kept its best"
    if "before there was a sample to keep" in child.stderr:
        assert ("continue with --resume" in child.stderr) == (folder / "checkpoint.pt").exists(), child.stderr
        assert not (fresh and (folder / "result.json").exists())
        return "had none"
    return "was not searching"


@pytest.mark.parametrize("method", METHODS)
def test_generate_ends_with_the_same_bits_whatever_kills_it(
    method: str, fork_server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = ["generate", "a red square", "--method", method, *METHODS[method], "-q", "--out", "out"]
    begun = time.monotonic()
    whole = fork_server.run(command, tmp_path / "whole", seconds=SECONDS, brief=True)
    assert whole.wait() == 0, whole.stderr
    lasts = time.monotonic() - begun
    expected, picture = result_in(tmp_path / "whole/out"), (tmp_path / "whole/out/image.png").read_bytes()
    draw, left, number, ends = random.Random(f"{method}"), kills(request, 2, 0.15), 0, Counter[str]()
    while left > 0:
        folder = tmp_path / str(number)
        number += 1
        code, fresh = -1, True
        while code != 0:
            resume = ["--resume"] if (folder / "out/checkpoint.pt").exists() else []
            child = fork_server.run([*command, *resume], folder, seconds=SECONDS, brief=True)
            if left <= 0:
                code = child.wait()
                break
            left -= 1
            by = draw.choice(SIGNALS)
            pattern = draw.choice([None, "out/checkpoint.pt", "out/checkpoint.pt"])
            code = kill_after(child, draw.uniform(0, lasts if pattern is None else lasts / 2), by, pattern)
            check_end(child, by, code)
            ends[f"{by.name}: {check_kept(child, folder / 'out', fresh) if code > 0 else code}"] += 1
            fresh &= not (folder / "out/result.json").exists()
        assert code == 0, child.stderr
        content = result_in(folder / "out")
        assert (folder / "out/image.png").read_bytes() == picture
        assert {name: content[name] for name in ACCOUNT} == {name: expected[name] for name in ACCOUNT}
        assert not content["interrupted"]
        assert not (folder / "out/checkpoint.pt").exists()
    print(f"\ngenerate, {method}: {sum(ends.values())} kills in {number} runs, {dict(sorted(ends.items()))}")


@pytest.mark.slow
def test_an_experiment_ends_with_the_same_bits_whatever_kills_it(
    fork_server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    suite = tmp_path / "mine.jsonl"
    suite.write_text('{"prompt": "a red square"}\n{"prompt": "a blue one"}\n')
    command = ["bench", "run", "--preset", "init", "--suite", str(suite), "--nfe", "100", "--seeds", "1", "--out", "x"]
    command += ["--reward", "caption", "--held-out", "judge"]
    begun = time.monotonic()
    whole = fork_server.run(command, tmp_path / "whole", seconds=SECONDS, brief=True)
    assert whole.wait() == 0, whole.stderr
    lasts = time.monotonic() - begun
    expected = {name: entry["sha256"] for name, entry in JournalIndex(tmp_path / "whole/x").done.items()}
    assert len(expected) == 14
    draw, left, number, ends = random.Random("bench"), kills(request, 3, 0.4), 0, Counter[str]()
    while left > 0:
        folder = tmp_path / str(number)
        number += 1
        before: set[str] = set()
        code = -1
        while code != 0:
            child = fork_server.run(command, folder, seconds=SECONDS, brief=True)
            if left <= 0:
                code = child.wait()
                break
            left -= 1
            by = draw.choice(SIGNALS)
            pattern = draw.choice([None, "x/checkpoints/*.pt"])
            code = kill_after(child, draw.uniform(0, lasts if pattern is None else lasts / 2), by, pattern)
            check_end(child, by, code)
            done = set(JournalIndex(folder / "x").done) if (folder / "x").exists() else set()
            assert done >= before, "a finished job is no longer recorded"
            if code > 0 and "jobs are done" in child.stderr:
                assert f"{len(done)} of 14 jobs are done, and the same command resumes the run" in child.stderr
            ends[f"{by.name}: {code}"] += 1
            before = done
        assert code == 0, child.stderr
        entries = [
            json.loads(line.partition(" ")[2])
            for journal in (folder / "x").glob("journal-*.jsonl")
            for line in journal.read_text().splitlines()
            if line
        ]
        assert {entry["id"]: entry["sha256"] for entry in entries} == expected
        assert len(entries) == len(expected), "a job was done twice"
        assert all(entry["nfe"] <= 100 for entry in entries)
        assert {path.stem for path in (folder / "x/images").glob("*.png")} == set(expected)
        assert list((folder / "x/claims").iterdir()) == list((folder / "x/checkpoints").glob("*.pt")) == []
    print(f"\nbench run: {sum(ends.values())} kills in {number} folders, {dict(sorted(ends.items()))}")
