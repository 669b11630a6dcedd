"""Experiments and failures around them: unavailable rewards, full disks, bad checkpoints and interruptions."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.forging import forged
from support.tiny import Judge, Redness, TinyModel, registered  # noqa: F401
from support.waiting import PATIENCE
from test_runner import told, whole  # noqa: F401
from tiny_experiment import ARMS, ITEMS, experiment, run
from torch import Tensor

from rollflow.api import generate
from rollflow.bench.replay import replay
from rollflow.bench.run import observer
from rollflow.bench.run import runner as runners
from rollflow.bench.run.folder import ExperimentFolder
from rollflow.bench.run.heartbeat import Heartbeat
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.leases import Leases
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites.load import Item, Suite
from rollflow.cli import main
from rollflow.errors import BudgetTooSmall, FolderError, RewardUnavailable, RollflowError
from rollflow.files.atomic import trouble

JOBS = len(ARMS) * len(ITEMS) * 2


class Away(Redness):
    """A reward that stops answering after a number of calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    @property
    def identity(self) -> str:
        return Redness().identity

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise RewardUnavailable("the server does not answer")
        return super().score(samples, prompts)


@pytest.mark.slow
def test_an_outage_fails_no_job(whole: Path, tmp_path: Path) -> None:  # noqa: F811
    """It uses no retries, begun jobs are resumed, and all results are the same to the last bit."""
    heard: list[Any] = []
    for _ in range(3):
        runner = Runner(experiment(), tmp_path, retries=0, job_ended=lambda *what: heard.append(what))
        with pytest.raises(RewardUnavailable, match="does not answer"):
            runner.run(TinyModel(), Away(8), [Judge()])
        assert runner.index.failures == {}
        assert list((tmp_path / "claims").iterdir()) == []
    assert all(what[1] is None for what in heard)
    assert list((tmp_path / "checkpoints").iterdir())
    assert 0 < len(JournalIndex(tmp_path).done) < JOBS
    run(tmp_path, retries=0)
    assert told(tmp_path) == told(whole)
    assert any(entry.get("resumed") for entry in JournalIndex(tmp_path).done.values())


@pytest.mark.slow
def test_the_command_says_what_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n{"prompt": "a unicorn"}\n')
    options = ["--preset", "init", "--suite", str(tmp_path / "mine.jsonl"), "--nfe", "100", "--seeds", "1"]
    arguments = ["bench", "run", *options, "--out", str(tmp_path / "run"), "--reward", "caption", "--held-out", "judge"]
    away = Away(3)
    with monkeypatch.context() as patched:
        patched.setattr(Redness, "score", lambda _, *asked: away.score(*asked))
        patched.setattr(Away, "score", lambda self, *asked: _answer(self, *asked))
        assert main([*arguments, "--retries", "0", "--no-resume"]) == 1
    told = capsys.readouterr().err
    assert "error: the server does not answer" in told
    assert "can still run: the same command with --resume resumes the run" in told
    monkeypatch.setattr(TinyModel, "interrupt_at", 2)
    assert main([*arguments, "--retries", "0"]) == 130
    told = capsys.readouterr().err
    assert "of 14 jobs are done, and the same command resumes the run" in told
    assert "sample to keep" not in told
    monkeypatch.setattr(TinyModel, "interrupt_at", None)
    assert main([*arguments, "--retries", "0"]) == 1
    told = capsys.readouterr().err
    assert "7 of 14 jobs are not done; 7 failed too often and were given up: raise --retries to try again" in told
    assert "the same command" not in told


def _answer(away: Away, samples: Tensor, prompts: Sequence[str]) -> Tensor:
    away.calls -= 1
    if away.calls < 0:
        raise RewardUnavailable("the server does not answer")
    return samples[:, 0].mean((1, 2))


def test_every_arm_is_planned_before_anything_is_written(tmp_path: Path) -> None:
    arms = (*ARMS, replace(ARMS[1], name="poor", nfe=1))
    with pytest.raises(BudgetTooSmall):
        Runner(experiment(arms=arms), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_job_that_cannot_be_made_fails_alone(tmp_path: Path) -> None:
    suite = Suite("two", "1", (ITEMS[0], Item(" ")))
    runner, _ = run(tmp_path, experiment=experiment(suite=suite, seeds=1), retries=1)
    assert len(runner.index.done) == len(runner.given_up) == len(ARMS)
    assert {error for errors in runner.index.failures.values() for error in errors} == {
        "BadSetting: the prompt is empty; give a string that describes the sample"
    }
    assert {len(errors) for errors in runner.index.failures.values()} == {2}


def _spoilt(tree: Any, kind: str) -> Any:
    if isinstance(tree, dict):
        if kind == "class" and str(tree.get("class", "")).endswith("Checkpoint"):
            return {**tree, "class": "Nothing"}
        if kind == "populations" and "populations" in tree:
            return {**tree, "populations": tree["populations"] * 3}
        return {key: _spoilt(part, kind) for key, part in tree.items()}
    if isinstance(tree, list):
        return [_spoilt(part, kind) for part in tree]
    return tree


def _flipped(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 2
    path.write_bytes(content)


def _earlier(path: Path, kind: str) -> None:
    torch.save({"version": 2, "job": {}, "checkpoint": {}}, path)


def _forged(path: Path, kind: str) -> None:
    forged(path, lambda told: {**told, "checkpoint": _spoilt(told["checkpoint"], kind)})


def _shapes(path: Path, kind: str) -> None:
    """A checkpoint of another kind of search, which only the search can detect."""
    forged(path, lambda told: _of_all(told, lambda fields: fields.update(extra=7)))


def _of_all(told: dict[str, Any], change: Any) -> None:
    for one in told["checkpoint"]["fields"]["populations"]:
        if one["fields"]["state"]:
            change(one["fields"]["state"]["fields"])


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [("class", _forged), ("populations", _forged), ("extra", _shapes), ("bit", _flipped), ("version", _earlier)],
)
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_used_is_none(
    whole: Path,  # noqa: F811
    tmp_path: Path,
    kind: str,
    spoil: Callable[[Path, str], None],
) -> None:
    """Whatever is wrong with a checkpoint, and whenever that shows, its job starts again and has not failed."""
    with pytest.raises(RewardUnavailable):
        Runner(experiment(), tmp_path).run(TinyModel(), Away(9), [Judge()])
    checkpoints = list((tmp_path / "checkpoints").iterdir())
    assert checkpoints
    for path in checkpoints:
        spoil(path, kind)
    warned: list[str] = []
    runner, _ = run(tmp_path, retries=0, warn=warned.append)
    assert runner.index.failures == {}
    assert told(tmp_path) == told(whole)
    if kind != "extra":
        assert len(warned) == len(checkpoints)
        assert all("cannot be used, so its job starts again: the checkpoint '" in warning for warning in warned)


@pytest.mark.slow
def test_a_full_disk_costs_checkpoints_alone(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:  # noqa: F811
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(observer, "save_checkpoint", full)
    warnings: list[str] = []
    run(tmp_path, checkpoint_seconds=0.0, warn=warnings.append)
    assert told(tmp_path) == told(whole)
    assert len(warnings) == 1
    assert f"the disk of '{tmp_path}' is full" in warnings[0]


def test_signs_of_life_go_on_after_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, warnings, beats, lively = ExperimentFolder(tmp_path), list[str](), list[int](), threading.Event()

    def alive(_: Leases, names: Sequence[str]) -> None:
        beats.append(len(names))
        if len(beats) < 3:
            raise OSError(errno.ESTALE, "Stale file handle")
        lively.set()

    monkeypatch.setattr(Leases, "renew", alive)
    with Heartbeat(folder, warnings.append, every=0.001):
        assert lively.wait(PATIENCE)
    assert len(warnings) == 1
    assert "Stale" in warnings[0]


def test_a_job_that_another_has_just_given_up_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = experiment(arms=ARMS[:1], suite=Suite("one", "1", ITEMS[:1]), seeds=1)
    runner, other, take = Runner(one, tmp_path, retries=0), ExperimentFolder(tmp_path), Leases.take

    def late(leases: Leases, name: str) -> bool:
        other.record({"id": name, "error": "failed elsewhere"})
        return take(leases, name)

    monkeypatch.setattr(Leases, "take", late)
    model = TinyModel()
    runner.run(model, Redness(), [Judge()])
    assert model.calls == 0
    assert list((tmp_path / "claims").iterdir()) == []


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    result = generate("a red square", method="bon", nfe=20, steps=4)
    odd = replace(result, parts={"a": math.nan, "b": 1.0}, held_out={"j": math.nan}, missing={"j": "away"})
    entry = replace(odd.record(), id="x").to_json()
    ExperimentFolder(tmp_path).record(entry)
    assert (entry["parts"], entry["held_out"], entry["missing"]) == ({"a": None, "b": 1.0}, {"j": None}, {"j": "away"})
    assert "missing" not in result.record().to_json()


def test_an_entry_that_cannot_be_written_fails_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "record_of", lambda *_: SimpleNamespace(to_json=lambda: {"reward": math.nan}))
    runner, _ = run(tmp_path, experiment=experiment(arms=ARMS[:1], seeds=1), retries=0)
    assert len(runner.given_up) == len(ITEMS)
    assert all("ValueError" in errors[0] for errors in runner.index.failures.values())


class Heavier(TinyModel):
    """A reward with other weights."""

    @property
    def identity(self) -> str:
        return "tiny(2)"

    def decode(self, x0: Tensor) -> Tensor:
        return super().decode(x0) * 0.999


def test_other_weights_are_named(whole: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    with pytest.raises(RollflowError, match=r'model was "scenes-base", is "tiny\(2\)"'):
        Runner(experiment(), folder).run(Heavier(), Redness(), [Judge()])
    made = replay(folder, next(iter(JournalIndex(folder).done)), Heavier(), Redness(), [Judge()])
    assert not made.same
    assert made.provenance == ['model was "scenes-base", is "tiny(2)"']


ERRORS = {
    errno.ENOSPC: "the disk of '{}' is full (No space left on device)",
    errno.EDQUOT: "the disk quota of '{}' is used up (Disk quota exceeded)",
    errno.EROFS: "'{}' is no longer writable: Read-only file system",
    errno.EACCES: "'{}' is no longer writable: Permission denied",
    errno.ESTALE: "a part of '{}' no longer exists: Stale file handle",
    errno.EIO: "'{}' cannot be used: Input/output error",
}


def test_what_happened_to_a_folder_is_told_in_words(tmp_path: Path) -> None:
    for number, message in ERRORS.items():
        assert trouble(tmp_path, OSError(number, os.strerror(number))) == message.format(tmp_path)
    gone = OSError(errno.ENOENT, "No such file or directory", "x/y")
    assert trouble(tmp_path / "x", gone) == f"'{tmp_path / 'x'}' no longer exists: it was moved or deleted"
    assert trouble(tmp_path, gone) == f"a part of '{tmp_path}' no longer exists: x/y"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.slow
def test_a_disk_that_fails_ends_the_run_in_words_and_loses_nothing(
    number: int,
    whole: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever a folder fails, records are kept, and unfinished jobs continue from their checkpoints."""
    failures = 0
    for calls in (9, 14, 23):
        left = [calls]

        def failing(handle: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            before = JournalIndex(tmp_path).done
            with pytest.raises(FolderError) as caught:
                run(tmp_path, retries=0)
        assert str(caught.value) == ERRORS[number].format(tmp_path)
        after = JournalIndex(tmp_path)
        assert before.items() <= after.done.items()
        failures += len(after.failures)
    assert failures == 0
    assert len(after.done) > 0
    run(tmp_path, retries=0)
    assert told(tmp_path) == told(whole)
    assert not list(tmp_path.rglob("*.part"))


def _after(jobs: int, act: Callable[[], object]) -> Callable[..., None]:
    """Return a callback that acts once a number of jobs are done."""
    left = [jobs]

    def told_of_one(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            act()

    return told_of_one


@pytest.mark.slow
def test_a_folder_that_is_moved_goes_on_where_it_is(
    whole: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "rollflow.bench.run.leases.LEASE", 1.5
    )  # the process that had the claims is this one, and alive
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(FolderError, match=r"'.*first' no longer exists: it was moved or deleted"):
        run(first, job_ended=_after(3, lambda: first.rename(second)), checkpoint_seconds=0.0)
    assert not first.exists()
    assert len(JournalIndex(second).done) >= 3
    run(second)
    assert told(second) == told(whole)


def test_a_folder_that_is_deleted_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"'.*run' no longer exists: it was moved or deleted"):
        run(tmp_path / "run", job_ended=_after(3, lambda: shutil.rmtree(tmp_path / "run")), checkpoint_seconds=0.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_copy_of_a_folder_at_work_is_an_experiment_of_its_own(
    whole: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The leases in the copy belong to a process that is alive but does not renew them there."""
    monkeypatch.setattr("rollflow.bench.run.leases.LEASE", 1.5)
    first, copy = tmp_path / "first", tmp_path / "copy"
    run(first, job_ended=_after(3, lambda: shutil.copytree(first, copy)), checkpoint_seconds=0.0)
    assert list((copy / "claims").iterdir())
    assert 3 <= len(JournalIndex(copy).done) < JOBS
    run(copy)
    assert told(first) == told(copy) == told(whole)
    assert list((copy / "claims").iterdir()) == list((copy / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("move", "no longer exists: it was moved or deleted; it has the records of 2 of 7 jobs; put it back, or give"),
        ("fill", "is full (No space left on device); 2 of 7 jobs are done and recorded; once this is fixed, the"),
    ],
)
@pytest.mark.slow
def test_the_command_says_in_one_line_what_became_of_its_folder(
    act: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n')
    out = tmp_path / "run"
    options = ["--preset", "init", "--suite", str(tmp_path / "mine.jsonl"), "--nfe", "100", "--seeds", "1"]
    arguments = ["bench", "run", *options, "--out", str(out), "--reward", "caption", "--held-out", "judge"]

    def fill() -> None:
        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)

    acts: dict[str, Callable[[], object]] = {"move": lambda: out.rename(tmp_path / "moved"), "fill": fill}
    with monkeypatch.context() as patched:
        patched.setattr("rollflow.cli.experiments._job_ended", _after(2, acts[act]))
        assert main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert message in errors[0]
