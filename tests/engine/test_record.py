"""The record of a job: nothing is lost on the way to a file and back, old ones are read, unknown ones refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from support.tiny import Redness, TinyModel

from rollflow.engine import Engine, Job, Origin, Point, Spending, Task, completed
from rollflow.engine.record import JobRecord, UnknownVersion, digest, plain
from rollflow.errors import RollflowError
from rollflow.search import BestOfN

VERSION_1: dict[str, Any] = {
    "id": "a49eb0a0aa7d8980",
    "arm": "plain",
    "prompt": "two cats",
    "ask": None,
    "category": "",
    "place": 0,
    "seed": 0,
    "noise": 4273679944211722011,
    "reward": -1.0,
    "parts": {},
    "held_out": {"judge": None},
    "missing": {"judge": "out of reach"},
    "nfe": 10,
    "network_rows": 20,
    "reward_calls": 1,
    "decodes": 2,
    "backward_passes": 0,
    "noise_level": 0.0,
    "seconds": 0.1,
    "trace": [[5, -2.0], [10, -1.0]],
    "diagnostics": [{}],
    "sha256": "fb",
    "device": "cpu",
    "versions": {"rollflow": "0.1.0"},
    "quota": [[1, 9]],
}
"""A line of a journal as it was before records had a version."""


def test_a_result_survives_its_file() -> None:
    [result] = completed(Engine().run([Job(Task(TinyModel(), "two cats", Redness()), BestOfN(), 20, 3)]))
    record = replace(result.record(), id="0" * 16, arm="ours", place=4, quota=[[1, 2]], ancestors=[[None, [0]]])
    assert JobRecord.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))) == record
    assert (record.seed, record.noise, record.reward) == (3, 3, result.reward)
    assert record.spent == result.spent
    assert record.sha256 == digest(result.sample)
    assert record.trace == result.trace
    assert record.origin == result.origin


def test_a_line_without_a_version_is_version_1() -> None:
    record = JobRecord.from_json(VERSION_1)
    assert record.spent == Spending(10, 20, 1, 2, 0)
    assert record.trace == (Point(5, -2.0), Point(10, -1.0))
    assert record.threads == 1  # which those lines did not tell
    assert (record.plan, record.origin) == ({}, None)
    kept = record.to_json()
    assert kept == {**{key: VERSION_1[key] for key in VERSION_1 if key in kept}, "version": 2, "threads": 1}
    defaults: dict[str, Any] = {"ask": None, "category": "", "place": 0, "parts": {}, "noise_level": 0.0}
    assert {key: VERSION_1[key] for key in VERSION_1 if key not in kept} == defaults


@pytest.mark.parametrize("version", [0, 3, "2", True, None])
def test_a_version_that_is_not_known_is_named(version: object) -> None:
    with pytest.raises(UnknownVersion, match=f"version {version!r}; this release of rollflow reads 1, 2"):
        JobRecord.from_json(VERSION_1 | {"version": version})


@pytest.mark.parametrize("name", ["prompt", "seed", "reward", "trace", "sha256", "versions"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(RollflowError, match=f"has no '{name}'"):
        JobRecord.from_json({key: value for key, value in VERSION_1.items() if key != name})


@pytest.mark.parametrize("trace", [3, [1], [[1, 2, 3]]])
def test_a_trace_of_another_form_is_refused(trace: object) -> None:
    with pytest.raises(RollflowError, match="malformed"):
        JobRecord.from_json(VERSION_1 | {"trace": trace})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", None),
        ("seed", 1.5),
        ("seed", True),
        ("threads", "1"),
        ("reward", "high"),
        ("reward", True),
        ("plan", [1]),
        ("ask", "cats"),
        ("versions", None),
        ("warnings", None),
        ("warnings", "text"),
        ("diagnostics", 1),
        ("resumed", 1),
        ("device", 0),
        ("ancestors", 10**400),
    ],
)
def test_a_field_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(RollflowError, match=rf"malformed: '{name}' is "):
        JobRecord.from_json(VERSION_1 | {name: value})


def test_keys_that_are_no_fields_are_ignored() -> None:
    assert JobRecord.from_json(VERSION_1 | {"image": "image.png"}) == JobRecord.from_json(VERSION_1)


def test_numbers_that_json_does_not_have_are_null() -> None:
    record = replace(
        JobRecord.from_json(VERSION_1), reward=math.nan, trace=(Point(1, -math.inf),), origin=Origin(1, None)
    )
    content = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert (content["reward"], content["trace"], content["origin"]) == (
        None,
        [[1, None]],
        {"population": 1, "row": None},
    )
    again = JobRecord.from_json(content)
    assert math.isnan(again.reward)
    assert again.origin == Origin(1, None)
    assert plain({"a": (1, math.inf)}) == {"a": [1, None]}
