"""Pools in folders: rounds are decided by the records, whatever is killed and however many processes take part."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny import Judge, Redness, TinyModel, register, registered  # noqa: F401
from support.waiting import PATIENCE, wait_until
from test_runner import lines, told
from tiny_experiment import ARMS, pooled, processes, run
from torch import Tensor

from rollflow.bench.analysis.results import read
from rollflow.bench.replay import replay
from rollflow.bench.run.experiment import Experiment
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.plans import costs_of, job_of
from rollflow.bench.run.runner import Runner
from rollflow.bench.run.stored import pack
from rollflow.cli import main
from rollflow.engine import Engine, Job, JobRecord, Pool
from rollflow.errors import BadSetting, RollflowError

UNTIL = 0.57
"""Redness that some of the jobs reach at once, some later, and some never."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a pooled experiment that ran without any disturbance."""
    path: Path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        run(path, experiment=pooled(UNTIL))
        yield path


def jobs(experiment: Experiment, arm: str, seed: int) -> list[Job]:
    trials = [trial for trial in experiment.trials() if (trial.arm.name, trial.seed) == (arm, seed)]
    return [job_of(trial, TinyModel(), Redness(), [Judge()], max_rows=8) for trial in trials]


def test_a_pool_of_a_folder_is_that_of_the_engine(whole: Path) -> None:
    """The jobs of one arm and seed share a pool; a plain sample has no search to share."""
    done = [JobRecord.from_json(one) for one in JournalIndex(whole).done.values()]
    assert len(done) == 2 * 4 * 2
    assert not any(one.rounds for one in done if one.arm == "plain")
    for seed in (0, 1):
        of_seed = {one.prompt: one for one in done if (one.arm, one.seed) == ("BoN", seed)}
        results = Engine(8, padded=True).run(jobs(pooled(UNTIL), "BoN", seed), pool=Pool(until=UNTIL))
        assert sum(one.nfe for one in of_seed.values()) == 96, "all of it is spent"
        assert len({len(one.rounds) for one in of_seed.values()}) > 1, "some stopped before others"
        for result in results:
            record, ours = of_seed[str(result.job.task.prompt)], result.record()
            assert (record.sha256, record.trace, record.rounds) == (ours.sha256, ours.trace, ours.rounds)
            assert (record.spent, record.noise, record.origin) == (ours.spent, ours.noise, ours.origin)
            assert (record.plan["nfe"], record.plan["seed"]) == (ours.plan["nfe"], ours.plan["seed"])
    assert {path.stem for path in (whole / "images").iterdir()} == {one.id for one in done}
    assert list((whole / "claims").iterdir()) == list((whole / "checkpoints").iterdir()) == []


def test_nothing_is_done_again(whole: Path) -> None:
    before = len(lines(whole))
    runner, model = run(whole, experiment=pooled(UNTIL))
    assert (model.rows, len(lines(whole)), runner.given_up) == (0, before, [])
    with pytest.raises(RollflowError, match=r"pool.until was 0.57, is 0.6"):
        Runner(pooled(0.6), whole)


@pytest.mark.slow
def test_records_are_enough_to_go_on_from(whole: Path, tmp_path: Path) -> None:
    """Cut after any record, between rounds or inside them, it ends with the same bits and the same rounds."""
    [journal] = [path for path in whole.glob("journal-*.jsonl") if path.stat().st_size]
    written = journal.read_bytes().splitlines(keepends=True)
    rounds = {name: one["nfe"] for name, one in JournalIndex(whole).rounds.items()}
    for kept in (3, 9, 14, len(written) - 2):
        part = tmp_path / str(kept)
        shutil.copytree(whole, part)
        (part / journal.name).write_bytes(b"".join(written[:kept]))
        for name in rounds:  # rounds keep their pictures until their job is over
            (part / "images" / f"{name}.png").write_bytes(name.encode())
        run(part, experiment=pooled(UNTIL))
        assert told(part) == told(whole)
        assert {name: one["nfe"] for name, one in JournalIndex(part).rounds.items()} == rounds
        assert len(lines(part)) == len(written)
        assert {path.stem for path in (part / "images").iterdir()} == set(told(whole))


@pytest.mark.subprocess
def test_killed_it_goes_on(whole: Path, tmp_path: Path) -> None:
    with processes(1, tmp_path, str(UNTIL), seconds=0.05) as [process]:

        def in_a_round() -> bool:
            assert process.poll() is None
            return bool(JournalIndex(tmp_path).rounds) and bool(list((tmp_path / "checkpoints").glob("*-*.pt")))

        wait_until(in_a_round)
        process.kill()
        process.wait()
    assert len(JournalIndex(tmp_path).rounds) < len(JournalIndex(whole).rounds)
    run(tmp_path, experiment=pooled(UNTIL))
    assert told(tmp_path) == told(whole)
    assert JournalIndex(tmp_path).rounds.keys() == JournalIndex(whole).rounds.keys()


@pytest.mark.subprocess
def test_processes_share_it(whole: Path, tmp_path: Path) -> None:
    """Two processes at once run every round exactly once, with the same bits."""
    with processes(2, tmp_path, str(UNTIL), seconds=0.01) as both:
        assert [process.wait(PATIENCE) for process in both] == [0, 0]
    assert told(tmp_path) == told(whole)
    assert len(lines(tmp_path)) == len(lines(whole))


class Moody(Redness):
    """A reward that fails on one prompt a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if "a red circle" in prompts:
            self.left -= 1
            if self.left >= 0:
                raise LookupError("no circle")
        return super().score(samples, prompts)


def test_arms_may_have_pools_of_their_own(whole: Path, tmp_path: Path) -> None:
    """An arm with a pool beside arms without: its jobs are those of an experiment whose arms all have it."""
    shared = replace(pooled(UNTIL), pool=None)
    arms = tuple(replace(arm, pool_until=UNTIL if arm.name == "BoN" else None) for arm in shared.arms)
    run(tmp_path, experiment=replace(shared, arms=arms))
    there, here = (
        {(one.arm, one.prompt, one.seed): one for one in map(JobRecord.from_json, JournalIndex(folder).done.values())}
        for folder in (whole, tmp_path)
    )
    assert here.keys() == there.keys()
    for key, record in here.items():
        assert bool(record.rounds) == (record.arm == "BoN")
        if record.arm in ("BoN", "plain"):
            assert (record.sha256, record.rounds) == (there[key].sha256, there[key].rounds)


def test_what_fails_leaves_the_pool(whole: Path, tmp_path: Path) -> None:
    """A round that fails is tried again; one that is given up counts as spent, and the others go on."""
    one = pooled(UNTIL, arms=ARMS[1:2], seeds=1)
    again = Runner(one, tmp_path / "again", retries=2)
    again.run(TinyModel(), Moody(2), [Judge()])
    assert told(tmp_path / "again").items() <= told(whole).items()
    assert len(again.index.done) == 4
    assert not read(tmp_path / "again").failed
    given_up = Runner(one, tmp_path / "up", retries=0)
    given_up.run(TinyModel(), Moody(99), [Judge()])
    [trial] = given_up.given_up
    assert trial.item.prompt == "a red circle"
    assert len(given_up.index.done) == 3
    assert sum(record["nfe"] for record in given_up.index.done.values()) == 80, "14 of 96 for its round, and 2 too few"
    assert len(read(tmp_path / "up").failed) == 1
    assert (again.unspent, given_up.unspent) == ({}, {})
    easy = Runner(replace(one, pool=Pool(until=0.0)), tmp_path / "easy")
    easy.run(TinyModel(), Redness(), [Judge()])
    assert easy.unspent == {"BoN, seed 0": 96 - 4 * 12}, "12 of a round's 14 NFE buy three samples"


@pytest.mark.slow
def test_its_records_are_read_packed_and_replayed(whole: Path, tmp_path: Path) -> None:
    packed = pack(whole)
    assert packed.jobs == len(packed.records.done) == 16
    assert packed.records.rounds == JournalIndex(whole).rounds
    (tmp_path / "one.jsonl.gz").write_bytes(packed.content)
    results = read(tmp_path / "one.jsonl.gz")
    assert len(results.done) == 16
    assert "All jobs are done" in results.missing
    later = [record for record in results.done if record.rounds and record.noise != record.rounds[0].seed]
    assert later, "some have their sample from a later round"
    for record in (*later, results.done[-1]):
        assert replay(whole, record.id, TinyModel(), Redness(), [Judge()]).same


def test_its_cost_and_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = pooled(UNTIL)
    assert costs_of(wanted) == {"plain": 4 * 4 * 2, "BoN": 24 * 4 * 2}
    assert costs_of(replace(wanted, pool=Pool(500, UNTIL)))["BoN"] == 1000
    with pytest.raises(BadSetting, match="reward 'caption' has no highest value"):
        costs_of(replace(wanted, pool=Pool()))
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red square"}\n{"prompt": "a red circle"}\n')
    options = ["--preset", "init", "--suite", str(tmp_path / "mine.jsonl"), "--nfe", "100", "--seeds", "1"]
    options += ["--reward", "caption", "--held-out", "judge"]
    command = ["bench", "run", *options, "--out", str(tmp_path / "run"), "--dry-run"]
    assert main([*command, "--pool", "--until", "0.6"]) == 0
    assert main([*command, "--until", "0.6"]) == 2
    assert main([*command, "--pool"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "7 arms, 2 prompts, 1 seed: 1220 NFE\n"
    assert "give --pool, too" in captured.err
    assert "give until" in captured.err


def test_no_round_has_the_id_of_another(whole: Path) -> None:
    names = JournalIndex(whole).rounds
    assert all(name.partition("-")[0] in told(whole) for name in names)
    assert all(math.isfinite(one["reward"]) for one in names.values())
