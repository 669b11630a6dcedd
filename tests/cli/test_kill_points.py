"""A run that is killed leaves a checkpoint that goes on, or a result; no other run takes either from it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import kill_points
from support.waiting import PATIENCE


@pytest.mark.subprocess
def test_killed_at_any_point_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, kill_points.__file__, str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    assert told.keys() == kill_points.POINTS.keys()
    for point, one in told.items():
        assert one["status"] == -signal.SIGKILL, point
        assert {"checkpoint.pt", "result.json"} & set(one["left"]), point
        assert one["resumed"] == 0, point
        assert one["same"], point
        assert one["rewards"][0] == one["rewards"][1], point
        assert {"image.png", "result.json"} <= set(one["after"]), point
        assert not {"checkpoint.pt", ".rollflow-lock"} & set(one["after"]), point
    for point in list(told)[:3]:
        assert told[point]["left"] == ["checkpoint.pt"], point
        if told[point]["other"] is None:
            continue
        assert told[point]["other"] == 2, point
        assert "holds the checkpoint of another run that was stopped (seed was 0, is 7)" in told[point]["refusal"]
    for point in list(told)[4:]:
        assert {"checkpoint.pt", "image.png", "result.json"} <= set(told[point]["left"]), point
