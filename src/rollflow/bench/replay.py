"""A picture of an experiment made again, from what its folder says alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

import rollflow
from rollflow.api import load_model
from rollflow.bench.entries import digest
from rollflow.bench.experiment import Arm, Trial, job_of, model_of
from rollflow.bench.folder import Tally, differing, read_config, read_identities
from rollflow.bench.identities import identities_of
from rollflow.bench.suites import Item
from rollflow.engine import Engine, Result
from rollflow.errors import RollflowError
from rollflow.models import FlowModel, PipelineSource, find_model
from rollflow.rewards import REWARDS, RewardModel


class Replayed(NamedTuple):
    """A job that was run again.

    Args:
        entry: What the journal says of it.
        result: What it gave this time.
        identities: Where model and rewards are not those that the experiment was begun with.
    """

    entry: dict[str, Any]
    result: Result
    identities: list[str]

    @property
    def same(self) -> bool:
        """Whether the sample is that of the journal, to the last bit."""
        return digest(self.result.sample) == str(self.entry["sha256"])

    @property
    def versions(self) -> list[str]:
        """Where the versions of then are not those of now, which may explain a difference."""
        now = {"rollflow": rollflow.__version__, "torch": torch.__version__}
        then = self.entry["versions"]
        return [f"{name} {then[name]}, now {version}" for name, version in now.items() if then[name] != version]


def find(folder: Path, job: str) -> dict[str, Any]:
    """The entry of a job that is done, by its id or the beginning of it.

    Raises:
        RollflowError: If there is none, or more than one.
    """
    found = [entry for name, entry in Tally(folder).done.items() if name.startswith(job)]
    if len(found) != 1:
        raise RollflowError(
            f"{len(found)} jobs of '{folder}' have an id that begins with '{job}'; expected one that is done: the ids "
            "are the names of the files in its folder 'images'"
        )
    return found[0]


def trial_of(config: dict[str, Any], entry: dict[str, Any]) -> Trial:
    """The job of an entry."""
    [arm] = [Arm(**arm) for arm in config["arms"] if arm["name"] == entry["arm"]]
    item = Item(entry["prompt"], entry["category"], entry["ask"])
    return Trial(arm, entry["place"], item, entry["seed"])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """With so many threads on the CPU, by whose number matrix products divide their sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def replay(
    folder: Path,
    job: str,
    model: FlowModel | None = None,
    reward: RewardModel | None = None,
    held_out: list[RewardModel] | None = None,
) -> Replayed:
    """Run a job of an experiment again, alone.

    On a CPU the sample is the same to the last bit with the same versions on the same kind of processor, since the
    calls of the model have the shape and the number of threads that they had.

    Args:
        folder: Of the experiment.
        job: Its id, or the beginning of it.
        model: In place of that of the name, if it is loaded already; so with all.
        reward: That the search optimises.
        held_out: That it does not see.

    Raises:
        RollflowError: If there is no such job, or something cannot be loaded.
    """
    config, entry, begun = read_config(folder), find(folder, job), read_identities(folder)
    judges = [REWARDS.make(name) for name in config["held_out"]] if held_out is None else held_out
    if model is None:
        again_on_cpu = entry.get("device") == "cpu" and isinstance(find_model(config["model"]), PipelineSource)
        where = {"device": "cpu"} if again_on_cpu else {}
        model = load_model(model_of(config["model"], config["pipeline"] | where))
    reward = reward or REWARDS.make(config["reward"])
    again = job_of(trial_of(config, entry), model, reward, judges)
    with _threads(entry.get("threads", 1)):  # which journals did not always tell, those of one thread each
        [result] = Engine(config["max_rows"], padded=True).run([again])
    now = identities_of(model, reward, judges)
    return Replayed(entry, result, [] if begun is None else differing(begun, now))
