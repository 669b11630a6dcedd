"""Results for tests: of a small experiment that is run, and of invented records."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support.tiny import Judge, Redness, TinyModel, register

from rollflow.bench.analysis.results import ExperimentResults
from rollflow.bench.run.experiment import Arm, Experiment
from rollflow.bench.run.records import FailedJob
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites.load import Item, Suite
from rollflow.engine import JobRecord

HOSTILE = '<script>alert("1")</script> | 100 % of_it & $2 #3'
ITEMS = (Item("a red square"), Item(HOSTILE, "odd", {"square": 2}), Item("a unicorn"))
ARMS = (
    Arm("plain", steps=4),
    Arm("BoN", "bon", 24, interpolant="linear", kernel="sde", steps=4),
    Arm("RBF_1", "rbf(initial=2)", 24, interpolant="linear", kernel="sde", steps=4),
    Arm("SMC", "smc", 24, interpolant="linear", kernel="ddim", steps=4),
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an experiment in which all jobs on unicorns have failed."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    suite = Suite("three", "1", ITEMS)
    experiment = Experiment("tiny & small", "scenes-base", "caption", ("judge",), suite, ARMS, 2, 8)
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        Runner(experiment, path, retries=0).run(TinyModel(), Redness(), [Judge()])
    return path


def entry(arm: str, prompt: str, seed: int, reward: float, **others: Any) -> dict[str, Any]:
    """Return a record of a journal with some fields given and the rest invented."""
    return {
        "id": f"{arm} {prompt} {seed}",
        "arm": arm,
        "prompt": prompt,
        "ask": None,
        "category": "",
        "place": ord(prompt[0]),
        "seed": seed,
        "reward": reward,
        "parts": {},
        "held_out": {},
        "nfe": 10,
        "network_rows": 20,
        "reward_calls": 1,
        "decodes": 1,
        "backward_passes": 0,
        "seconds": 2.0,
        "trace": [[10, reward]],
        "diagnostics": [],
        "sha256": "0",
        "quota": [],
        "versions": {"rollflow": "0"},
        **others,
    }


def study(
    *entries: dict[str, Any],
    seeds: int = 2,
    failed: tuple[dict[str, Any], ...] = (),
    reward: str = "caption",
    arms: tuple[Arm, ...] = (),
) -> ExperimentResults:
    """Return the results of an experiment with these records; unless ``arms`` is given, the first arm is plain."""
    names = dict.fromkeys(entry["arm"] for entry in entries)
    arms = arms or tuple(Arm(name, nfe=10 if i else None) for i, name in enumerate(names))
    prompts = len({one["prompt"] for one in entries})
    config = {
        "name": "made up",
        "reward": reward,
        "arms": [asdict(arm) for arm in arms],
        "seeds": seeds,
        "max_rows": 8,
        "suite": {"name": "s", "prompts": prompts},
    }
    return ExperimentResults(
        "made up", config, tuple(map(JobRecord.from_json, entries)), tuple(map(FailedJob.from_json, failed))
    )
