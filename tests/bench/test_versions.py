"""Records of every version: the first one, in the committed experiments, and future ones."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from support.small_study import folder  # noqa: F401

from rollflow.bench.analysis.results import read
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.packed import head_of, unpacked
from rollflow.cli import main
from rollflow.engine import JobRecord
from rollflow.errors import RollflowError
from rollflow.options import options_of

PLACES = (0, 1)
"""Two prompts of the experiment's suite."""
COMMITTED = Path(__file__).parents[2] / "results/init.jsonl.gz"


def line(content: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(content), content)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder as written by the first release: two prompts of a committed experiment with all of its arms."""
    if not COMMITTED.is_file():
        pytest.skip("a source distribution has no results")
    path, lines = tmp_path / "old", iter(unpacked(COMMITTED))
    path.mkdir()
    head = head_of(next(lines), COMMITTED)
    config = head.config | {"seeds": 1, "suite": head.config["suite"] | {"prompts": 2}}
    (path / "experiment.json").write_text(json.dumps(config, indent=1))
    (path / "identities.json").write_text(json.dumps(head.provenance))
    (path / "command.txt").write_text(head.command or "")
    few = (one for one in lines if json.loads(one)["seed"] == 0 and json.loads(one)["place"] in PLACES)
    (path / "journal-1.jsonl").write_bytes(b"".join(map(line, few)))
    return path


@pytest.mark.slow
def test_folders_of_the_first_release_are_read(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = [*JournalIndex(old).done.values()]
    assert not any({"version", "plan", "origin"} & record.keys() for record in raw)
    results = read(old)
    assert results.missing == "All jobs are done."
    assert [(record.arm, record.reward) for record in results.of("plain")] == [
        ("plain", record["reward"]) for record in raw if record["arm"] == "plain"
    ]
    assert main(["report", str(old)]) == 0
    assert main(["compare", str(old), str(COMMITTED)]) == 0
    assert "| suite.prompts | 2 | 60 |" in capsys.readouterr().out


@pytest.mark.slow
def test_journals_hold_records_of_the_present_version(folder: Path) -> None:  # noqa: F811
    records = [*JournalIndex(folder).done.values()]
    for record in records:
        assert record["version"] == JobRecord.version
        assert JobRecord.from_json(record).to_json() == record
    searched = [record for record in records if record["arm"] != "plain"]
    assert {record["plan"]["nfe"] for record in searched} == {24}
    assert all(record["origin"]["row"] >= 0 for record in searched)


def test_journals_hold_the_whole_plan_of_what_was_run(folder: Path) -> None:  # noqa: F811
    """Of plain samples, too."""
    plans = {record["arm"]: record["plan"] for record in JournalIndex(folder).done.values()}
    assert all(plan.keys() == {"prompt", *options_of()} for plan in plans.values())
    assert {plan["max_rows"] for plan in plans.values()} == {8}
    assert {name: plans["SMC"][name] for name in ("method", "nfe", "kernel", "steps")} == {
        **{"method": "smc", "nfe": 24, "kernel": "ddim", "steps": 4}
    }
    plain = {"method": "bon", "nfe": 4, "interpolant": "linear", "kernel": "ode", "steps": 4, "lookahead": "tweedie"}
    assert {name: plans["plain"][name] for name in plain} == plain
    assert {plans["plain"][name] for name in ("grid", "guidance", "finish")} == {None}


@pytest.mark.parametrize("version", [3, 0, "2", None, 2.5])
def test_versions_to_come_are_refused_by_name(folder: Path, tmp_path: Path, version: Any) -> None:  # noqa: F811
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    record = next(iter(JournalIndex(copy).done.values())) | {"version": version, "id": "0" * 16}
    (copy / "journal-z.jsonl").write_bytes(line(json.dumps(record).encode()))
    with pytest.raises(RollflowError, match=rf"journal-z.jsonl, line 1, of .* has version {version!r}; this release"):
        read(copy)
