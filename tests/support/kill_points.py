"""Kills ``rollflow generate`` at chosen points by SIGKILL and reports what it left: ``python kill_points.py FOLDER``.

Every run is a fork of this process, so that torch is imported once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support.tiny import Judge, Redness, TinyModel

from rollflow.cli import main
from rollflow.files import atomic
from rollflow.files.run_folder import RunFolder
from rollflow.models import MODELS
from rollflow.output import plots
from rollflow.output.checkpoints import CheckpointFile
from rollflow.rewards import REWARDS

COMMAND = ["generate", "a red square", "--method", "svdd", "--nfe", "60", "-q", "--out"]


def killed(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that its call number ``calls`` kills the process before doing anything."""
    left = [calls]

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            killed()
        return function(*arguments, **named)

    return counted


POINTS: dict[str, Callable[[], None]] = {
    "while the second checkpoint is written": lambda: setattr(atomic, "_put", after(2, atomic._put)),
    "while the third takes its place": lambda: setattr(os, "replace", after(3, os.replace)),
    "after the search": lambda: setattr(RunFolder, "keep", killed),
    "after the picture, before the account": lambda: setattr(RunFolder, "_announce", _before_the_account),
    "after both": lambda: setattr(RunFolder, "remove_earlier", killed),
    "while it is plotted": lambda: setattr(plots, "trace", killed),
    "before the checkpoint is removed": lambda: setattr(CheckpointFile, "remove", killed),
}


_ANNOUNCE = RunFolder._announce


def _before_the_account(out: RunFolder, digests: dict[str, str]) -> None:
    _ANNOUNCE(out, digests)
    os.replace = after(2, os.replace)


def forked(run: Callable[[], int]) -> int:
    """Run a function in a fork; returns its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        os._exit(run())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(out: Path, prepare: Callable[[], None], *more: str) -> int:
    prepare()
    with (
        (out.parent / f"{out.name}.err").open("w") as file,
        contextlib.redirect_stderr(file),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        return main([*COMMAND, str(out), *more])


if __name__ == "__main__":
    torch.set_num_threads(1)
    MODELS["scenes-base"] = TinyModel
    REWARDS["caption"], REWARDS["judge"] = Redness, Judge
    folder, outcomes = Path(sys.argv[1]), {}
    whole = folder / "whole"
    assert forked(lambda: run(whole, lambda: None)) == 0
    for number, (point, prepare) in enumerate(POINTS.items()):
        out = folder / str(number)
        status = forked(lambda out=out, prepare=prepare: run(out, prepare))  # type: ignore[misc]
        left = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        other = forked(lambda out=out: run(out, lambda: None, "--seed", "7")) if number in (0, 2) else None  # type: ignore[misc]
        refusal = (folder / f"{number}.err").read_text()
        resumed = forked(lambda out=out: run(out, lambda: None, "--resume"))  # type: ignore[misc]
        outcomes[point] = {
            "status": status,
            "left": left,
            "other": other,
            "refusal": refusal,
            "resumed": resumed,
            "same": (out / "image.png").read_bytes() == (whole / "image.png").read_bytes(),
            "rewards": [json.loads((one / "result.json").read_text())["reward"] for one in (out, whole)],
            "after": sorted(path.name for path in out.iterdir() if not path.name.endswith(".part")),
        }
    print(json.dumps(outcomes))
