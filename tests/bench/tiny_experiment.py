"""A small experiment on the tiny model, also as a process: python tiny_experiment.py FOLDER SECONDS_A_CALL."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
from support.tiny import Judge, Redness, TinyModel, register
from torch import Tensor

from rollflow.bench.run.experiment import Arm, Experiment
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites.load import Item, Suite

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
    """Takes its time, and counts the rows that it was given."""

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


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        run(Path(sys.argv[1]), seconds=float(sys.argv[2]), checkpoint_seconds=0.0)
