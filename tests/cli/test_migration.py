"""Folders that releases without versioned records wrote are read as ever.

Both were written with the packaged model: by ``generate --method svdd --nfe 60 --seed 4 --compare``, whose plots are
left out here, and by an experiment of two arms, one prompt and one seed.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from rollflow.bench.analysis.results import read
from rollflow.cli import main
from rollflow.engine.record import JobRecord

OLD = Path(__file__).parents[1] / "data" / "before_records"
COMMAND = ["generate", "three cats on grass background", "--method", "svdd", "--nfe", "60", "--seed", "4"]


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / "generated", tmp_path / "generated"))


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(OLD / "experiment", tmp_path / "experiment"))
    packed = folder / "journal-1.jsonl.gz"  # the repository holds no uncompressed journal
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return folder


def test_a_finished_run_is_not_run_again(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in generated.iterdir()}
    assert main([*COMMAND, "--resume", "--out", str(generated)]) == 0
    out, err = capsys.readouterr()
    assert err == f"warning: the run is already finished; its result is in '{generated}'\n"
    assert "reward    caption" in out
    assert {path.name: path.read_bytes() for path in generated.iterdir()} == before


def test_another_run_may_take_its_folder(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old files are known to be rollflow's own, and are replaced or removed."""
    line = [*COMMAND[:2], "--method", "bon", "--steps", "2", "--nfe", "2", "--out", str(generated)]
    assert main(line) == 0
    assert (
        "replaced the result of another run ('three cats on grass background', svdd, seed 4)" in capsys.readouterr().out
    )
    assert {path.name for path in generated.iterdir()} == {"image.png", "trace.png", "filmstrip.png", "result.json"}


def test_what_an_old_result_lacks_is_said(generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--from", str(generated), "--out", str(generated.parent / "again")]) == 2
    assert "was written by an earlier release, which did not record all options of the run" in capsys.readouterr().err


def test_an_old_journal_is_of_version_1(experiment: Path) -> None:
    for line in (experiment / "journal-1.jsonl").read_text().splitlines():
        content = json.loads(line.partition(" ")[2])
        record = JobRecord.from_json(content)
        assert "version" not in content
        assert (record.sha256, record.arm, record.trace[-1].nfe) == (content["sha256"], content["arm"], content["nfe"])


def test_an_old_experiment_is_reported_and_compared(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(experiment).missing == "All jobs are done."
    assert main(["report", str(experiment)]) == 0
    page, tables = (experiment / name for name in ("report.html", "report.md"))
    assert "870fea3a3ee4f7ac" in page.read_text() or "data:image/png" in page.read_text()
    assert re.search(r"RBF .*0\.00607953", tables.read_text()) is not None
    capsys.readouterr()
    assert main(["compare", str(experiment), str(experiment)]) == 0
    assert "RBF" in capsys.readouterr().out


def test_an_old_job_is_replayed(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the last bit with the versions of then; whatever they are, to the same sample but for rounding."""
    code = main(["replay", str(experiment), "870f"])
    out, err = capsys.readouterr()
    found = re.search(r"RBF, 'three cats on grass background', seed 0: reward ([\d.e+-]+)", out)
    assert found is not None
    assert float(found[1]) == pytest.approx(0.006079526427979258, rel=0.05)
    assert code == 0 or "torch 2.13.0+cpu, now" in err or "processor" in err
