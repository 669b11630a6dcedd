"""Tables that compare two experiments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rollflow.bench.analysis.estimates import INTERVALS_NOTE, difference
from rollflow.bench.analysis.results import ExperimentResults
from rollflow.report.typeset import Cell, Table


def compared(first: ExperimentResults, second: ExperimentResults) -> list[Table]:
    """Return the tables that compare two runs: settings that differ, and paired differences of the arms in both."""
    rows, theirs = [], {measure.title: measure for measure in second.rewards}
    shared = [(measure, theirs[measure.title]) for measure in first.rewards if measure.title in theirs]
    for arm in (arm for arm in first.arms if arm in second.arms and shared):
        pairs = [difference(second.cells(b, arm), first.cells(a, arm)) for a, b in shared]
        rows.append((arm, pairs[0].pairs, *(pair.interval for pair in pairs)))
    notes = (
        "The second run less the first, over the pairs (a prompt and a seed) that both have.",
        INTERVALS_NOTE,
        f"First run: {first.missing} Second run: {second.missing}",
    )
    columns = ("arm", "pairs", *(measure.title for measure, _ in shared))
    settings = tuple(_different(_settings(first), _settings(second)))
    return [
        Table("Settings that differ", ("setting", "first run", "second run"), settings),
        Table("Paired differences, arm by arm", columns, tuple(rows), notes),
    ]


def _settings(results: ExperimentResults) -> dict[str, str]:
    """Return all settings of an experiment and the versions that ran it, by dotted name."""
    versions: dict[str, list[str]] = {}
    for record in results.done:
        for name, version in record.versions.items():
            versions[name] = list(dict.fromkeys([*versions.get(name, []), version]))
    arms = {arm["name"]: arm for arm in results.config["arms"]}
    return dict(_flat(results.config | {"arms": arms, "versions": versions}))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else key)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _different(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterable[tuple[Cell, ...]]:
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)
