"""A run that is killed goes on where it stood, with the same bits and the same account."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.forging import forged
from torch import Tensor

from rollflow.dynamics.guidance import DPS
from rollflow.dynamics.interpolants import VP, Linear
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
from rollflow.engine.checkpoint.file import fingerprint
from rollflow.errors import BadCheckpoint
from rollflow.models.mixture.gaussian_mixture import GaussianMixture
from rollflow.models.mixture.model import ToyModel
from rollflow.output.checkpoints import CheckpointFile
from rollflow.prompts import Prompt
from rollflow.requests import Asking, Save
from rollflow.rewards.mixing import RankAverage
from rollflow.rewards.toy import ToyReward
from rollflow.sampler import Sampler
from rollflow.search import SVDD, BestOfN, Finished, Progress, Propagator, RolloverBudget, Search

MIXTURE = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-2.0, 1.0], [2.0, 0.0]]), torch.tensor([0.4, 0.6]))
MODEL = ToyModel({"two modes": MIXTURE})


class Quiet(ToyReward):
    """Not tried before a search, so that all calls are the search's own."""

    probed = False


TASK = Task(MODEL, "two modes", Quiet(torch.tensor([-2.0, 1.0], dtype=torch.float64)))
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
@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(BadCheckpoint, match=r"there is no checkpoint '.*c\.pt' to resume from"):
        load_checkpoint(job, tmp_path / "c.pt")
    for damaged in (b"", b"nonsense", b"PK\x03\x04"):
        (tmp_path / "c.pt").write_bytes(damaged)
        with pytest.raises(BadCheckpoint, match=r"checkpoint '.*' cannot be read"):
            load_checkpoint(job, tmp_path / "c.pt")


def a_checkpoint(path: Path, at: int = 4) -> Job:
    """A job, and a checkpoint of it in a file."""
    job = Job(TASK, RolloverBudget(2, 3), 60, 5, SAMPLERS["linear"])
    watch = Killer()
    Engine(8, [watch]).run([job])
    save_checkpoint(job, watch.seen[at], path)
    return job


@pytest.mark.slow
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    job = a_checkpoint(tmp_path / "c.pt")
    content = (tmp_path / "c.pt").read_bytes()
    draw = random.Random(0)
    head = [8 * byte + draw.randrange(8) for byte in range(120)]
    places = [*head, *(draw.randrange(len(content) * 8) for _ in range(400))]
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / "c.pt").write_bytes(damaged)
        with pytest.raises(BadCheckpoint):
            load_checkpoint(job, tmp_path / "c.pt")
    for size in [*range(0, 120, 7), *(draw.randrange(len(content)) for _ in range(60))]:
        (tmp_path / "c.pt").write_bytes(content[:size])
        with pytest.raises(BadCheckpoint):
            load_checkpoint(job, tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(content + b"0")
    with pytest.raises(BadCheckpoint, match="changed after it was written"):
        load_checkpoint(job, tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(content)
    load_checkpoint(job, tmp_path / "c.pt")


def _state(told: dict[str, Any]) -> dict[str, Any]:
    """The first population's ``Progress`` in the text of a checkpoint."""
    fields: dict[str, Any] = told["checkpoint"]["fields"]["populations"][0]["fields"]["state"]["fields"]
    return fields


CLASSES = [
    "rollflow.engine.checkpoint.file:os.mkdir",
    "rollflow.engine.checkpoint.file:json",
    "subprocess:Popen",
    "builtins:eval",
    "antigravity:anything",
    "rollflow.engine.job:Task",
    "rollflow.search.smc.weighing:Weighing",
    "Weighing",
    "Task",
    "rollflow.engine.state:Checkpoint.__class__",
    "",
]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.slow
def test_a_class_that_is_no_state_of_the_search_is_not_made(name: str, tmp_path: Path) -> None:
    """Nothing is looked up or imported either, and nothing is called."""
    job, made, before = a_checkpoint(tmp_path / "c.pt"), tmp_path / "made", set(sys.modules)
    gadget = {"class": name, "fields": {"path": str(made)}}
    for place in (lambda told: {**told, "checkpoint": gadget}, lambda told: _state(told).update(extra=gadget)):
        forged(tmp_path / "c.pt", place)
        with pytest.raises(BadCheckpoint, match="which is not a state of its search"):
            load_checkpoint(job, tmp_path / "c.pt")
        a_checkpoint(tmp_path / "c.pt")
    assert not made.exists()
    assert set(sys.modules) == before


def _told(told: dict[str, Any]) -> dict[str, Any]:
    """The first population in the text of a checkpoint."""
    fields: dict[str, Any] = told["checkpoint"]["fields"]["populations"][0]["fields"]
    return fields


def _spent(told: dict[str, Any]) -> Any:
    return _told(told)["spent"]["fields"]


def _rise(told: dict[str, Any]) -> Any:
    return _told(told)["rises"][0]["fields"]


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a field too many": (lambda told: _state(told).update(__class__=1), "fields of its Progress"),
    "a field too few": (lambda told: _state(told).pop("particles") and None, "fields of its Progress.*particles"),
    "a text for a number": (lambda told: _state(told).update(step="0"), "'step' of its Progress is a str"),
    "a truth for a number": (lambda told: _state(told).update(nfe_left=True), "'nfe_left' of its Progress is a bool"),
    "a number for a class": (lambda told: _state(told).update(particles=3), "'particles' of its Progress is a int"),
    "a list for a state": (lambda told: told["checkpoint"]["fields"].update(populations=[[]]), "'populations'"),
    "another class for a state": (lambda told: {**told, "checkpoint": _state(told)["particles"]}, "not a Checkpoint"),
    "no class": (lambda told: {**told, "checkpoint": 3}, "holds a int, not a Checkpoint"),
    "an entry of its own": (lambda told: _state(told).update(extra={"call": "x"}), "holds an entry of call"),
    "a tensor that is not there": (
        lambda told: _state(told).update(ancestors={"tensor": "99", "host": True}),
        "names a tensor '99'",
    ),
    "a tensor of another shape": (
        lambda told: _state(told)["particles"]["fields"].update(
            x=_state(told)["particles"]["fields"]["reward"],
        ),
        "'x' of its particles has shape",
    ),
    "populations too many": (
        lambda told: told["checkpoint"]["fields"].update(populations=told["checkpoint"]["fields"]["populations"] * 3),
        "holds 6 populations, not 2",
    ),
    "spent too much": (
        lambda told: told["checkpoint"]["fields"]["populations"][0]["fields"]["spent"]["fields"].update(nfe=10**9),
        "has spent 1000000000 of",
    ),
    "spent less than nothing": (lambda told: _spent(told).update(backward_passes=-1), "has -1 of 'backward_passes'"),
    "spent without end": (lambda told: _spent(told).update(decodes=2**63), f"has {2**63} of 'decodes'"),
    "more left than there is": (lambda told: _state(told).update(nfe_left=10**6), "NFE left, of"),
    "a negative count": (lambda told: _told(told).update(ineligible={"dict": [["x", -5]]}), "has -5 of 'x'"),
    "a time that is no number": (lambda told: told["checkpoint"]["fields"].update(seconds=float("nan")), "nan seconds"),
    "a negative time": (lambda told: told["checkpoint"]["fields"].update(seconds=-1), "-1 seconds"),
    "a rise to no number": (lambda told: _rise(told).update(reward=float("nan")), "reward rises from"),
    "a rise too late": (lambda told: _rise(told).update(nfe=10**6), "reward rises from"),
    "a rise before the start": (lambda told: _rise(told).update(nfe=-1), "reward rises from"),
    "another best": (lambda told: _told(told)["best"]["fields"].update(reward=9.5), "reward of its best sample is 9.5"),
    "an endless best": (lambda told: _told(told)["best"]["fields"].update(reward=float("inf")), "has reward inf"),
    "no best": (lambda told: _told(told).update(best=None), "has a best sample without a rise"),
    "a noise level of its own": (lambda told: _told(told)["best"]["fields"].update(noise_level=2), "noise level 2"),
    "a key that cannot be one": (lambda told: _state(told).update(extra={"dict": [[{"dict": []}, 1]]}), "unhashable"),
}


@pytest.mark.parametrize("kind", FORGERIES)
@pytest.mark.slow
def test_a_forged_state_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    job, (change, message) = a_checkpoint(tmp_path / "c.pt"), FORGERIES[kind]
    forged(tmp_path / "c.pt", change)
    with pytest.raises(BadCheckpoint, match=f"checkpoint '.*' cannot be used: .*{message}"):
        load_checkpoint(job, tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: kept._replace(x=kept.x.half()), "'x' of its particles has .*float16"),
        (lambda kept: kept._replace(clean=kept.clean > 0), "'clean' of its particles has .*bool"),
        (lambda kept: kept._replace(reward=kept.reward.float()), "rewards of shape .*float32"),
        (lambda kept: kept._replace(reward=torch.full_like(kept.reward, torch.inf)), "or that are infinite"),
    ],
)
def test_particles_of_another_kind_are_refused(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    job = a_checkpoint(tmp_path / "c.pt")
    checkpoint = load_checkpoint(job, tmp_path / "c.pt")
    first, *others = checkpoint.populations
    assert isinstance(first.state, Progress)
    forged = replace(first, state=replace(first.state, particles=change(first.state.particles)))
    save_checkpoint(job, replace(checkpoint, populations=(forged, *others)), tmp_path / "c.pt")
    with pytest.raises(BadCheckpoint, match=message):
        load_checkpoint(job, tmp_path / "c.pt")


def test_a_file_of_gigabytes_is_not_held_in_memory(tmp_path: Path) -> None:
    job = a_checkpoint(tmp_path / "c.pt")
    os.truncate(tmp_path / "c.pt", 1 << 27)
    tracemalloc.start()
    try:
        with pytest.raises(BadCheckpoint, match="changed after it was written"):
            load_checkpoint(job, tmp_path / "c.pt")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_file_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    job = a_checkpoint(tmp_path / "c.pt")
    content = (tmp_path / "c.pt").read_bytes()
    for text in (b"[" * 10**6, b'{"a":' * 10**5, b"9" * 10**5, b'{"job": {"a": 1}, "checkpoint": 0}', b"[]", b"\xff"):
        body = len(text).to_bytes(8, "little") + text
        head = content[:22] + hashlib.sha256(body).hexdigest().encode() + b"\n"
        (tmp_path / "c.pt").write_bytes(head + body)
        with pytest.raises(BadCheckpoint, match=r"checkpoint '.*' cannot be read"):
            load_checkpoint(job, tmp_path / "c.pt")
    body = (1 << 62).to_bytes(8, "little")
    (tmp_path / "c.pt").write_bytes(content[:22] + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(BadCheckpoint, match="its text would have"):
        load_checkpoint(job, tmp_path / "c.pt")


def test_what_is_no_regular_file_or_of_another_version_is_refused(tmp_path: Path) -> None:
    job = a_checkpoint(tmp_path / "c.pt")
    newer = (tmp_path / "c.pt").read_bytes().replace(b"checkpoint 4", b"checkpoint 5", 1)
    (tmp_path / "newer.pt").write_bytes(newer)
    with pytest.raises(BadCheckpoint, match="it has version 5, and this release reads versions 3 and 4"):
        load_checkpoint(job, tmp_path / "newer.pt")
    torch.save({"version": 2, "job": fingerprint(job), "checkpoint": {}}, tmp_path / "older.pt")
    with pytest.raises(BadCheckpoint, match="it was written by an earlier release of rollflow"):
        load_checkpoint(job, tmp_path / "older.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", tmp_path, Path("/dev/zero")):
        with pytest.raises(BadCheckpoint, match="it is not a regular file"):
            load_checkpoint(job, path)


def test_a_field_that_a_later_release_adds_may_be_missing(tmp_path: Path) -> None:
    """Every field with a default may; the file of an earlier release of this version has none of it."""
    job = a_checkpoint(tmp_path / "c.pt")
    whole = load_checkpoint(job, tmp_path / "c.pt")
    forged(tmp_path / "c.pt", lambda told: told["checkpoint"]["fields"]["populations"][0]["fields"].pop("seen"))
    [first, _] = load_checkpoint(job, tmp_path / "c.pt").populations
    assert first.seen is None
    assert (first.spent, first.rises) == (whole.populations[0].spent, whole.populations[0].rises)


@dataclass(frozen=True)
class Odd:
    """A state of a third party's search."""

    memory: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Undeclared:
    """A state that its search forgets to declare."""

    number: int


@dataclass(frozen=True)
class Heir(RolloverBudget):
    """RBF, with a further state."""

    states: ClassVar[tuple[type, ...]] = (Odd,)


@dataclass(frozen=True)
class ThirdParty(BestOfN):
    """A search with a state of its own."""

    extra: Any = None
    name = "third"
    states = (Odd,)

    def population(self, propagator: Propagator, resume: Progress | None = None) -> Asking[Finished]:
        asking, reply = super().population(propagator, resume), None
        while True:
            try:
                request = asking.send(reply)
            except StopIteration as stop:
                finished: Finished = stop.value
                return finished
            reply = yield Save(replace(request.state, extra=self.extra)) if isinstance(request, Save) else request


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
    job, saved = checkpoint(Undeclared(1))
    with pytest.raises(TypeError, match="Undeclared cannot be saved: name it in the 'states' of the search"):
        save_checkpoint(job, saved, tmp_path / "d.pt")
    assert not (tmp_path / "d.pt").exists()


def test_states_are_inherited(tmp_path: Path) -> None:
    """A search that adds a state to another's keeps the other's."""
    job = Job(TASK, Heir(2, 3), 60, 5, SAMPLERS["linear"])
    watch = Killer()
    [whole] = Engine(8, [watch]).run([job])
    save_checkpoint(job, watch.seen[3], tmp_path / "c.pt")
    [again] = Engine(8).run([replace(job, resume=load_checkpoint(job, tmp_path / "c.pt"))])
    same(again, whole)


def test_a_state_that_cannot_be_saved_does_not_fail_the_search(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "c.pt")
    [result] = Engine(8, [file]).run([Job(TASK, ThirdParty(Undeclared(1)), 8, 0, SAMPLERS["linear"])])
    assert not result.interrupted
    assert "name it in the 'states'" in str(file.error)


def test_a_disk_that_fails_does_not_fail_the_search(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "missing" / "c.pt")
    [result] = Engine(8, [file]).run([Job(TASK, BestOfN(), 8, 0, SAMPLERS["linear"])])
    assert not result.interrupted
    assert isinstance(file.error, FileNotFoundError)
