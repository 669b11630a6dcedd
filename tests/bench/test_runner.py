"""Experiments in folders: no job is run twice and no finished job is lost, whatever is killed."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import Judge, Redness, TinyModel, register, registered  # noqa: F401
from support.waiting import PATIENCE, wait_until
from tiny_experiment import ARMS, ITEMS, experiment, processes, run
from torch import Tensor

from rollflow.api import generate
from rollflow.bench.replay import find, replay
from rollflow.bench.run import description
from rollflow.bench.run.folder import ExperimentFolder
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.runner import Runner
from rollflow.bench.suites.load import Item, Suite
from rollflow.cli import main
from rollflow.engine import JobRecord
from rollflow.engine.record import digest
from rollflow.errors import RollflowError

JOBS = len(ARMS) * len(ITEMS) * 2


def told(folder: Path) -> dict[str, str]:
    """Return the digest of every finished job."""
    return {name: entry["sha256"] for name, entry in JournalIndex(folder).done.items()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line.partition(" ")[2])
        for journal in folder.glob("journal-*.jsonl")
        for line in journal.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an experiment that ran without any disturbance."""
    path: Path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        register(patch)  # the fixture of that name is of one test
        run(path)
    return path


@pytest.mark.slow
def test_every_job_is_done_and_told(whole: Path) -> None:
    entries = JournalIndex(whole).done
    assert len(entries) == JOBS
    combinations = {(entry["arm"], entry["prompt"], entry["seed"]) for entry in entries.values()}
    assert combinations == {(arm.name, item.prompt, seed) for arm in ARMS for item in ITEMS for seed in (0, 1)}
    assert {path.stem for path in (whole / "images").iterdir()} == set(entries)
    assert list((whole / "claims").iterdir()) == list((whole / "checkpoints").iterdir()) == []
    smc = next(entry for entry in entries.values() if entry["arm"] == "SMC")
    assert smc["nfe"] == sum(map(sum, smc["quota"])) == 24
    assert smc["diagnostics"][0]
    assert {tuple(entry.get("ask", ())) for entry in entries.values()} == {(), ("red square",)}


def test_a_job_is_what_generate_gives(whole: Path) -> None:
    entry = next(entry for entry in JournalIndex(whole).done.values() if entry["arm"] == "RBF" and entry["seed"] == 1)
    settings: dict[str, Any] = {"interpolant": "linear", "kernel": "sde", "steps": 4}
    result = generate(entry["prompt"], method="rbf(initial=2)", nfe=24, seed=entry["noise"], **settings)
    assert (entry["reward"], entry["sha256"]) == (result.reward, digest(result.sample))
    assert entry["held_out"] == result.held_out
    assert entry["trace"] == [list(point) for point in result.trace]


def test_nothing_finished_is_done_again(whole: Path) -> None:
    _, model = run(whole)
    assert model.rows == 0
    assert len(lines(whole)) == JOBS


@pytest.mark.subprocess
def test_killed_it_goes_on_inside_a_prompt(whole: Path, tmp_path: Path) -> None:
    """After a SIGKILL the next run finishes the experiment from checkpoints, with the same bits."""
    with processes(1, tmp_path, seconds=0.05) as [process]:

        def half_done() -> bool:
            assert process.poll() is None
            return bool(JournalIndex(tmp_path).done) and len(list((tmp_path / "checkpoints").glob("*.pt"))) > 2

        wait_until(half_done)
        process.kill()
        process.wait()
    before = JournalIndex(tmp_path).done
    assert 0 < len(before) < JOBS
    assert list((tmp_path / "claims").iterdir())
    begun = [path for path in (tmp_path / "checkpoints").iterdir() if path.suffix == ".pt"]
    anew = tmp_path.with_name(f"{tmp_path.name}-anew")
    shutil.copytree(tmp_path, anew)
    for path in begun:
        (anew / "checkpoints" / path.name).unlink()
    _, model = run(tmp_path)
    _, other = run(anew)
    assert told(anew) == told(whole)
    assert told(tmp_path) == told(whole)
    assert sorted(entry["id"] for entry in lines(tmp_path)) == sorted(told(whole))
    entries = JournalIndex(tmp_path).done
    resumed = {name for name, entry in entries.items() if entry.get("resumed")}
    assert resumed == {path.stem for path in begun} - set(before)
    assert resumed
    assert all(sum(map(sum, entries[name]["quota"])) < entries[name]["nfe"] for name in resumed)
    assert model.rows < other.rows, "less than without checkpoints"
    assert list((tmp_path / "claims").iterdir()) == list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.subprocess
def test_processes_share_a_folder(whole: Path, tmp_path: Path) -> None:
    """Three processes at once run every job exactly once, with the same bits."""
    with processes(3, tmp_path, seconds=0.01) as all_three:
        assert [process.wait(PATIENCE) for process in all_three] == [0, 0, 0]
    assert told(tmp_path) == told(whole)
    assert len(lines(tmp_path)) == JOBS
    assert len(list(tmp_path.glob("journal-*.jsonl"))) > 1


@pytest.mark.slow
def test_a_journal_that_was_cut_is_read_as_far_as_it_is_whole(whole: Path, tmp_path: Path) -> None:
    """In a truncated or corrupted journal intact records count; other jobs are run again with equal results."""
    [journal] = [path for path in whole.glob("journal-*.jsonl") if path.stat().st_size]
    content = journal.read_bytes()
    (tmp_path / description.CONFIG).write_bytes((whole / description.CONFIG).read_bytes())
    ends = [i for i, byte in enumerate(content) if byte == 10]
    for cut in (0, 5, ends[0] - 1, ends[0], ends[3] + 1, len(content) - 3):
        (tmp_path / "journal-a.jsonl").write_bytes(content[:cut])
        assert len(JournalIndex(tmp_path).done) == sum(end < cut for end in ends)
    turned = bytearray(content)
    turned[ends[1] + 40] ^= 1
    (tmp_path / "journal-a.jsonl").write_bytes(bytes(turned[: ends[5] + 9]))
    assert len(JournalIndex(tmp_path).done) == 5
    run(tmp_path)
    assert told(tmp_path) == told(whole)


def test_a_tally_reads_on(tmp_path: Path) -> None:
    """A line that is still being written is not read."""
    folder = ExperimentFolder(tmp_path)
    folder.record({"id": "a", "reward": 1})
    index = JournalIndex(tmp_path)
    [journal] = tmp_path.glob("journal-*.jsonl")
    whole = journal.read_bytes()
    folder.record({"id": "b", "error": "Oops: no"})
    both = journal.read_bytes()
    journal.write_bytes(both[: len(whole) + 12])
    index.refresh()
    assert (list(index.done), dict(index.failures)) == (["a"], {})
    journal.write_bytes(both)
    index.refresh()
    assert dict(index.failures) == {"b": ["Oops: no"]}


def test_a_folder_of_another_experiment_is_refused(whole: Path) -> None:
    other = experiment(arms=(*ARMS[:1], replace(ARMS[1], nfe=28), *ARMS[2:]), seeds=3)
    with pytest.raises(RollflowError, match=r"arms\[1\]\.nfe was 24, is 28; seeds was 2, is 3"):
        Runner(other, whole)
    suite = Suite("two", "1", (*ITEMS[:1], Item("two blue squares")))
    with pytest.raises(RollflowError, match=r"suite\.sha256 was "):
        Runner(experiment(suite=suite), whole)


def test_arms_are_told_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(RollflowError, match="arm names must be distinct; got 'BoN' twice"):
        Runner(experiment(arms=(ARMS[1], ARMS[1])), tmp_path)


class Moody(Redness):
    """A reward that fails on one prompt a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if "two red squares" in prompts:
            self.left -= 1
            if self.left >= 0:
                raise LookupError("no square")
        return super().score(samples, prompts)


@pytest.mark.slow
def test_what_fails_is_recorded_tried_again_and_counted(whole: Path, tmp_path: Path) -> None:
    two = experiment(arms=ARMS[1:2], seeds=1)
    heard: list[Any] = []
    runner = Runner(two, tmp_path, retries=2, job_ended=lambda *what: heard.append(what))
    runner.run(TinyModel(), Moody(99), [Judge()])
    [name] = runner.index.failures
    assert runner.index.failures[name] == ["BadReward: reward 'caption' failed: LookupError: no square"] * 3
    assert len(runner.index.done) == 1
    assert sum(what[1] is not None for what in heard) == 3
    again = Runner(two, tmp_path, retries=2)
    again.run(TinyModel(), Redness(), [Judge()])
    assert len(again.index.done) == 1, "given up"
    once_more = Runner(two, tmp_path, retries=3)
    once_more.run(TinyModel(), Redness(), [Judge()])
    assert len(once_more.index.done) == 2
    assert told(tmp_path).items() <= told(whole).items()


def test_no_job_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    runner, model = run(tmp_path, minutes=0.0)
    assert (model.rows, runner.index.done) == (0, {})
    assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.slow
def test_a_replay_is_the_same_to_the_last_bit(whole: Path) -> None:
    for name, entry in JournalIndex(whole).done.items():
        made = replay(whole, name[:9], TinyModel(), Redness(), [Judge()])
        assert made.record == JobRecord.from_json(entry)
        assert made.same
        assert made.versions == []


@pytest.mark.slow
def test_a_replay_has_as_many_threads_as_the_job_had(tmp_path: Path) -> None:
    threads: list[int] = []

    class Noting(TinyModel):
        def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
            threads.append(torch.get_num_threads())
            return super().velocity(x, t, conditions)

    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        run(tmp_path)
    finally:
        torch.set_num_threads(before)
    replay(tmp_path, next(iter(JournalIndex(tmp_path).done)), Noting(), Redness(), [Judge()])
    assert set(threads) == {before + 1}
    assert torch.get_num_threads() == before


def test_a_replay_that_differs_says_so(whole: Path) -> None:
    class Other(TinyModel):
        def decode(self, x0: Tensor) -> Tensor:
            return super().decode(x0) * 0.999

    name = next(iter(JournalIndex(whole).done))
    assert not replay(whole, name, Other(), Redness(), [Judge()]).same
    with pytest.raises(RollflowError, match=r"0 finished jobs of .* begins with 'zzz'"):
        find(whole, "zzz")
    with pytest.raises(RollflowError, match="begins with ''"):
        find(whole, "")


def test_only_some_arms_are_run_and_the_others_later(tmp_path: Path) -> None:
    """Arms that run later give the same records as in one run, and those that are done are not run again."""
    first, _ = run(tmp_path / "parts", only=["S*", "pl*"])
    done = JournalIndex(tmp_path / "parts").done
    assert {record["arm"] for record in done.values()} == {"SMC", "plain"}
    assert len(done) == len(first.trials) == 8
    later: list[str] = []
    run(tmp_path / "parts", job_ended=lambda trial, *_: later.append(trial.arm.name))
    assert sorted(later) == ["BoN"] * 4 + ["RBF"] * 4
    run(tmp_path / "whole")
    parts, whole = (JournalIndex(tmp_path / name).done for name in ("parts", "whole"))
    assert {name: parts[name] for name in done} == done
    assert parts.keys() == whole.keys()
    kept = ("arm", "reward", "sha256", "nfe", "trace")
    assert all([parts[name][key] for key in kept] == [whole[name][key] for key in kept] for name in whole)
    with pytest.raises(RollflowError, match="no arm matches 'X'; the arms are: plain; BoN; RBF; SMC"):
        run(tmp_path / "none", only=["X"])
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands run from a user's suite to a replayed picture, and refuse the folder of another experiment."""
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n')
    options = ["--preset", "init", "--suite", str(tmp_path / "mine.jsonl"), "--nfe", "100", "--seeds", "1"]
    arguments = ["bench", "run", *options, "--out", str(tmp_path / "run"), "--reward", "caption", "--held-out", "judge"]
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out == "7 arms, 1 prompt, 1 seed: 610 NFE\n"
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--only", "R*", "--only=plain"]) == 0
    assert "5 of 5 jobs" in capsys.readouterr().err
    assert (tmp_path / "run/command.txt").read_text() == shlex.join(["rollflow", *arguments])
    assert main(arguments) == 0
    assert "7 of 7 jobs" in capsys.readouterr().err
    name = sorted(JournalIndex(tmp_path / "run").done)[0]
    assert main(["replay", str(tmp_path / "run"), name, "--out", str(tmp_path / "again.png")]) == 0
    assert capsys.readouterr().out.endswith("the same to the last bit\n")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / f"run/images/{name}.png").read_bytes()
    assert main([*arguments, "--no-resume"]) == 2
    assert main([*arguments, "--no-resume", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("already holds an experiment") == 2
    assert main([*arguments, "--resume"]) == 0
    assert main([*arguments, "--nfe", "90"]) == 2
    assert "belongs to another experiment: arms[1].nfe was 100, is 90" in capsys.readouterr().err
    assert main(["bench", "run", "--preset", "innit", "--out", str(tmp_path / "run")]) == 2
    assert "did you mean 'init'?" in capsys.readouterr().err
    assert main(["bench", "presets"]) == 0
    assert "section 5" in capsys.readouterr().out
