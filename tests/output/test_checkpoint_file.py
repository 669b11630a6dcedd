"""Checkpoints of a run on their way to disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny import Redness, TinyModel

from rollflow.api import run
from rollflow.bench.run.folder import ExperimentFolder
from rollflow.bench.run.observer import JobObserver
from rollflow.engine import Checkpoint, Job, Observer, Task, load_checkpoint
from rollflow.errors import BadCheckpoint
from rollflow.output.checkpoints import CheckpointFile
from rollflow.search import BestOfN, RolloverBudget


class Digested(TinyModel):
    """Its identity takes long, as one that digests weights."""

    digests = 0
    weights = "a"

    @property
    def identity(self) -> str:
        type(self).digests += 1
        return f"digested({self.weights})"


class Saves(Observer):
    def __init__(self) -> None:
        self.count = 0

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self.count += 1


@pytest.mark.parametrize("where", ["file", "experiment"])
def test_identities_are_told_once_a_job(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is saved; but as they are whenever one is loaded."""
    monkeypatch.setattr(Digested, "digests", 0)
    model = Digested()
    task = Task(model, "a red square", Redness())
    saves, path = Saves(), tmp_path / "file.pt"
    for jobs, search in enumerate((RolloverBudget(), BestOfN()), 1):
        job = Job(task, search, 90)
        if where == "file":
            keeper: Observer = CheckpointFile(path)
        else:
            folder = ExperimentFolder(tmp_path)
            keeper, path = JobObserver(folder, 0.0, pytest.fail), folder.checkpoint("a")
            keeper.begin(job, "a")
        run(job, [keeper, saves])
        assert saves.count > 2 * jobs
        assert Digested.digests == jobs
        load_checkpoint(job, path)
        Digested.digests = jobs
    model.weights = "b"
    with pytest.raises(BadCheckpoint, match=r"model was digested\(a\), is digested\(b\)"):
        load_checkpoint(job, path)
