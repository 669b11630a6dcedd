"""An experiment that an earlier release began and was killed in is finished by this one, to the same samples.

The folder was written by ``tiny_experiment`` with records of version 1 and checkpoints of version 3: three of its jobs
are done, four have a checkpoint. The leases of its process are left out.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from support.tiny import registered  # noqa: F401
from tiny_experiment import run

from rollflow.bench.analysis.results import read
from rollflow.bench.run.journal import JournalIndex
from rollflow.cli import main

STOPPED = Path(__file__).parents[1] / "data" / "before_records" / "stopped"


@pytest.mark.slow
def test_an_experiment_of_an_earlier_release_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(STOPPED, tmp_path / "stopped"))
    journal = folder / "journal-1.jsonl.gz"  # the repository holds no uncompressed journal
    journal.with_suffix("").write_bytes(gzip.decompress(journal.read_bytes()))
    journal.unlink()
    before = dict(JournalIndex(folder).done)
    assert (len(before), len(list((folder / "checkpoints").iterdir()))) == (3, 4)

    warnings: list[str] = []
    runner, _ = run(folder, warn=warnings.append)
    fresh, _ = run(tmp_path / "fresh")
    done, expected = runner.index.done, fresh.index.done
    assert done.keys() == expected.keys()
    assert {name: done[name] for name in before} == before
    assert sum("resumed" in record for record in done.values()) == 4
    for name, record in done.items():  # not by their digests: another processor may have computed the first steps
        for key in ("reward", "held_out"):
            assert record[key] == pytest.approx(expected[name][key], abs=1e-5)
        assert [record[key] for key in ("nfe", "reward_calls")] == [
            expected[name][key] for key in ("nfe", "reward_calls")
        ]
    assert [one for one in warnings if "checkpoint" in one] == []

    assert read(folder).missing == "All jobs are done."
    assert main(["report", str(folder), "--gallery", "0"]) == 0
    assert main(["bench", "pack", str(folder)]) == 0
    assert main(["compare", f"{folder}.jsonl.gz", str(tmp_path / "fresh")]) == 0
    assert "First run: All jobs are done. Second run: All jobs are done." in capsys.readouterr().out
