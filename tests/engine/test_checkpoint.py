"""A run that is killed goes on where it stood, with the same bits and the same account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rollflow.engine import (
    Checkpoint,
    Engine,
    Interrupted,
    Job,
    Observer,
    Result,
    Task,
    load_checkpoint,
    save_checkpoint,
)
from rollflow.errors import BadCheckpoint
from rollflow.guidance import DPS
from rollflow.interpolants import VP, Linear
from rollflow.models.gaussian_mixture import GaussianMixture
from rollflow.models.toy import ToyModel, ToyReward
from rollflow.prompts import Prompt
from rollflow.report.checkpoints import CheckpointFile
from rollflow.requests import Asking
from rollflow.rewards.mixing import RankAverage
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN, Finished, Progress, RolloverBudget, Search, Walk

MIXTURE = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-2.0, 1.0], [2.0, 0.0]]), torch.tensor([0.4, 0.6]))
MODEL = ToyModel({"two modes": MIXTURE})
TASK = Task(MODEL, "two modes", ToyReward(torch.tensor([-2.0, 1.0], dtype=torch.float64)))
SEARCHES: list[Search] = [BestOfN(), SVDD(2), RolloverBudget(2, 3), RolloverBudget(3, 2)]
SAMPLERS = {
    "linear": Sampler(Linear(), steps=4),
    "vp": Sampler(VP(), steps=3),
    "guided": Sampler(Linear(), steps=4, guidance=DPS(0.1)),
}


class Killed(Exception):
    """What a kill is in a test."""


class Killer(Observer):
    """Remembers checkpoints and stops the run at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.seen: list[Checkpoint] = []

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        self.seen.append(checkpoint)
        if len(self.seen) - 1 == self.at:
            raise KeyboardInterrupt


def same(ours: Result, theirs: Result) -> None:
    assert torch.equal(ours.x0, theirs.x0)
    assert torch.equal(ours.sample, theirs.sample)
    assert (ours.reward, ours.spent, ours.noise_level) == (theirs.reward, theirs.spent, theirs.noise_level)
    assert (ours.trace, ours.shares) == (theirs.trace, theirs.shares)


@pytest.mark.parametrize("search", SEARCHES, ids=repr)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("relative", [False, True], ids=["plain", "relative"])
def test_killed_at_any_save_it_ends_with_the_same_bits(
    search: Search, sampler: Sampler, relative: bool, tmp_path: Path
) -> None:
    """Also with a reward that looks back at what was scored before the kill."""
    if relative and sampler.guidance:
        pytest.skip("what looks back has no gradient")
    task = replace(TASK, reward=RankAverage((TASK.reward, Upwards()))) if relative else TASK
    job = Job(task, search, 60, 5, sampler)
    watch = Killer()
    [whole] = Engine(8, [watch]).run([job])
    assert len(watch.seen) >= sampler.steps
    for at in range(len(watch.seen)):
        path = tmp_path / f"{at}.pt"
        with pytest.raises(Interrupted):
            Engine(8, [CheckpointFile(path), Killer(at)]).run([job])
        resumed = replace(job, resume=load_checkpoint(job, path))
        evaluated = sum(one.spent.nfe for one in resumed.resume.populations) if resumed.resume else 0
        counting = Counting({"two modes": MIXTURE})
        [result] = Engine(8).run([replace(resumed, task=replace(task, model=counting))])
        same(result, whole)
        assert counting.rows == whole.spent.nfe - evaluated


class Upwards(ToyReward):
    """The second coordinate."""

    name = "upwards"

    def score(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return samples[:, 1]


class Counting(ToyModel):
    """The toy, counting its rows."""

    rows = 0

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Any]) -> Tensor:
        self.rows += len(x)
        return super().velocity(x, t, conditions)


def test_a_finished_population_is_not_run_again() -> None:
    job = Job(TASK, RolloverBudget(2, 3), 60, 5, SAMPLERS["linear"])
    watch = Killer()
    [whole] = Engine(8, [watch]).run([job])
    assert all(isinstance(one.state, Finished) for one in watch.seen[-1].populations)
    counting = Counting({"two modes": MIXTURE})
    [result] = Engine(8).run([replace(job, task=replace(TASK, model=counting), resume=watch.seen[-1])])
    same(result, whole)
    assert counting.rows == 0


def test_others_in_the_engine_do_not_matter() -> None:
    job, other = (Job(TASK, RolloverBudget(2, 3), 60, seed, SAMPLERS["linear"]) for seed in (5, 6))
    watch = Killer()
    [whole] = Engine(8, [watch]).run([job])
    [alone] = Engine(8).run([other])
    for checkpoint in watch.seen[::3]:
        theirs, ours = Engine(5).run([other, replace(job, resume=checkpoint)])
        same(ours, whole)
        same(theirs, alone)


def test_a_checkpoint_file_keeps_every_bit(tmp_path: Path) -> None:
    job = Job(TASK, RolloverBudget(2, 3), 60, 5, SAMPLERS["linear"])
    watch = Killer()
    Engine(8, [watch]).run([job])
    checkpoint = watch.seen[4]
    save_checkpoint(job, checkpoint, tmp_path / "c.pt")
    read = load_checkpoint(job, tmp_path / "c.pt")
    for one, other in zip(read.populations, checkpoint.populations, strict=True):
        assert (one.spent, one.rises, one.seen) == (other.spent, other.rises, other.seen)
        assert one.best is not None
        assert other.best is not None
        assert torch.equal(one.best.x0, other.best.x0)
        assert one.best[1:] == other.best[1:]
        ours, theirs = one.state, other.state
        assert isinstance(ours, Progress)
        assert isinstance(theirs, Progress)
        assert (ours.step, ours.nfe_left, ours.nfe_spent, ours.extra) == (
            theirs.step,
            theirs.nfe_left,
            theirs.nfe_spent,
            theirs.extra,
        )
        assert type(ours.extra) is type(theirs.extra)
        for a, b in zip(ours.particles, theirs.particles, strict=True):
            assert (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.pt"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Job(TASK, RolloverBudget(2, 4), 60, 5, SAMPLERS["linear"]), r"search was .*initial=3.*, is .*initial=4"),
        (Job(TASK, RolloverBudget(2, 3), 61, 5, SAMPLERS["linear"]), "nfe was 60, is 61$"),
        (Job(TASK, RolloverBudget(2, 3), 60, 6, SAMPLERS["vp"]), "sampler was .*; seed was 5, is 6"),
    ],
)
def test_the_checkpoint_of_another_job_is_refused(other: Job, message: str, tmp_path: Path) -> None:
    job = Job(TASK, RolloverBudget(2, 3), 60, 5, SAMPLERS["linear"])
    watch = Killer()
    Engine(8, [watch]).run([job])
    save_checkpoint(job, watch.seen[0], tmp_path / "c.pt")
    with pytest.raises(BadCheckpoint, match=f"belongs to another job: {message}"):
        load_checkpoint(other, tmp_path / "c.pt")


def test_what_a_prompt_asked_for_is_not_forgotten(tmp_path: Path) -> None:
    """Scores for what was given are not compared with scores for what is read from the words."""
    asking = replace(TASK, prompt=Prompt(TASK.prompt, {"mode": 7}))
    job, plain = (Job(task, SVDD(1), 16, 0, SAMPLERS["linear"]) for task in (asking, TASK))
    for ours, theirs in ((job, plain), (plain, job)):
        watch = Killer()
        Engine(8, [watch]).run([theirs])
        save_checkpoint(theirs, watch.seen[0], tmp_path / "one.pt")
        with pytest.raises(BadCheckpoint, match=r"asked was (\{'mode': 7\}|None), is"):
            load_checkpoint(ours, tmp_path / "one.pt")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    job = Job(TASK, BestOfN(), 8, 0, SAMPLERS["linear"])
    with pytest.raises(BadCheckpoint, match=r"there is no '.*c\.pt' to go on from"):
        load_checkpoint(job, tmp_path / "c.pt")
    for damaged in (b"", b"nonsense", b"PK\x03\x04"):
        (tmp_path / "c.pt").write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match="is no checkpoint that can be read"):
            load_checkpoint(job, tmp_path / "c.pt")


def test_a_class_that_the_search_does_not_use_is_not_made(tmp_path: Path) -> None:
    job = Job(TASK, BestOfN(), 8, 0, SAMPLERS["linear"])
    watch = Killer()
    Engine(8, [watch]).run([job])
    save_checkpoint(job, watch.seen[0], tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    content["checkpoint"]["best"] = {"": "subprocess:Popen", "args": "true"}
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(BadCheckpoint, match="holds a Popen of subprocess"):
        load_checkpoint(job, tmp_path / "c.pt")


@dataclass(frozen=True)
class Odd:
    """A state of a third party's search."""

    memory: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ThirdParty(BestOfN):
    """A search with a state of its own."""

    extra: Any = None
    name = "third"

    def population(self, walk: Walk, resume: Progress | None = None) -> Asking[Finished]:
        asking, reply = super().population(walk, resume), None
        while True:
            try:
                request = asking.send(reply)
            except StopIteration as stop:
                finished: Finished = stop.value
                return finished
            state = getattr(request, "state", None)
            reply = yield type(request)(replace(state, extra=self.extra)) if state else request


def test_states_of_other_packages(tmp_path: Path) -> None:
    def checkpoint(extra: object) -> tuple[Job, Checkpoint]:
        job = Job(TASK, ThirdParty(extra), 8, 0, SAMPLERS["linear"])
        watch = Killer()
        Engine(8, [watch]).run([job])
        return job, watch.seen[0]

    job, saved = checkpoint(Odd({"a": (1, 2)}))
    save_checkpoint(job, saved, tmp_path / "c.pt")
    [only] = load_checkpoint(job, tmp_path / "c.pt").populations
    assert isinstance(only.state, Progress)
    assert only.state.extra == Odd({"a": (1, 2)})
    job, saved = checkpoint({1, 2})
    with pytest.raises(TypeError, match="set cannot be saved"):
        save_checkpoint(job, saved, tmp_path / "d.pt")


def test_a_disk_that_fails_does_not_fail_the_search(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "missing" / "c.pt")
    [result] = Engine(8, [file]).run([Job(TASK, BestOfN(), 8, 0, SAMPLERS["linear"])])
    assert not result.interrupted
    assert isinstance(file.error, FileNotFoundError)
