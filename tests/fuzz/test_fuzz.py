"""No file makes a loader do anything but read it, or refuse it in one line; at length, see ``campaign.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of memory and time are those of POSIX")
CAMPAIGN = Path(__file__).with_name("campaign.py")
LOADERS = 38


@pytest.mark.subprocess
def test_no_mutated_file_gets_through() -> None:
    words = [sys.executable, str(CAMPAIGN), "--cases", "12"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" files, 0 faults") == done.stdout.count(" files, ") >= LOADERS


@pytest.mark.subprocess
def test_the_guard_sees_what_must_not_be_done(tmp_path: Path) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(CAMPAIGN.parent)!r})
from pathlib import Path
from guard import Guard
top = Path({str(tmp_path)!r})
(top / "work").mkdir(), (top / "canary").write_text("a secret")
guard = Guard(top / "work", top / "canary")
for act in (
    lambda: os.system("true"),
    lambda: open(top / "canary").close(),
    lambda: open(top / "elsewhere", "w").close(),
    lambda: os.rename(top / "elsewhere", top / "work" / "here"),
    lambda: __import__("this"),
    lambda: open(top / "work" / "allowed", "w").close(),
):
    with guard.watching():
        act()
    print(len(guard.seen), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.split() == ["1", "1", "1", "1", "1", "0"]
