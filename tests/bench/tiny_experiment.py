"""A small experiment on the tiny model, also as a process: python tiny_experiment.py FOLDER SECONDS_A_CALL [UNTIL].

With UNTIL, its jobs share pools.

The process prints a line when it has imported everything, and begins once it has read one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from support.tiny import Judge, Redness, TinyModel, register
from torch import Tensor

from rollflow.bench.run.experiment import Arm, Experiment
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites.load import Item, Suite
from rollflow.engine import Pool

ARMS = (
    Arm("plain", steps=4),
    Arm("BoN", "bon", 24, interpolant="linear", kernel="sde", steps=4),
    Arm("RBF", "rbf(initial=2)", 24, interpolant="linear", kernel="sde", steps=4),
    Arm("SMC", "smc", 24, interpolant="linear", kernel="sde", steps=4),
)
ITEMS = (Item("a red square"), Item("two red squares", "counting", {"red square": 2}))


def experiment(**changes: Any) -> Experiment:
    suite = Suite("two", "1", ITEMS)
    settings: dict[str, Any] = {"arms": ARMS, "suite": suite, "seeds": 2, "max_rows": 8, **changes}
    return Experiment("tiny", "scenes-base", "caption", ("judge",), **settings)


class Sleepy(TinyModel):
    """A slow model that counts the rows it is called with."""

    seconds = 0.0
    rows = 0

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        self.rows += len(x)
        time.sleep(self.seconds)
        return super().velocity(x, t, conditions)


def run(folder: Path, *, seconds: float = 0.0, **settings: Any) -> tuple[Runner, Sleepy]:
    model = Sleepy()
    model.seconds = seconds
    runner = Runner(settings.pop("experiment", experiment()), folder, **settings)
    runner.run(model, Redness(), [Judge()])
    return runner, model


def pooled(until: float, **changes: Any) -> Experiment:
    """Return the experiment with pools, on four prompts with little to spend."""
    four = Suite("four", "1", (*ITEMS, Item("a red circle"), Item("a blue square")))
    settings: dict[str, Any] = {"arms": ARMS[:2], "suite": four, "pool": Pool(until=until), **changes}
    return experiment(**settings)


@contextmanager
def processes(number: int, folder: Path, *more: str, seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that run the experiment in one folder at the same time; they are killed at the end."""
    command = [sys.executable, __file__, str(folder), str(seconds), *more]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        all_ = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(number)]
        for process in all_:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline()
        for process in all_:
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        yield all_


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        wanted = pooled(float(sys.argv[3])) if sys.argv[3:] else experiment()
        run(Path(sys.argv[1]), experiment=wanted, seconds=float(sys.argv[2]), checkpoint_seconds=0.0)
