"""Replay of single jobs of an experiment from its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import rollflow
from rollflow.api import load_model
from rollflow.api.trust import refuse_untrusted as refuse_choices
from rollflow.bench.run.description import differing
from rollflow.bench.run.experiment import Arm, Trial
from rollflow.bench.run.plans import job_of, model_of
from rollflow.bench.run.pools import round_trial
from rollflow.bench.run.provenance import provenance_of
from rollflow.bench.run.schema import short
from rollflow.bench.run.stored import StoredExperiment, read_stored
from rollflow.bench.suites.load import Item
from rollflow.engine import Engine, JobRecord, Result, completed
from rollflow.engine.record import digest
from rollflow.errors import RollflowError
from rollflow.models import FlowModel, PipelineSource, find_model
from rollflow.options import options_of, sampling_of
from rollflow.rewards import REWARDS, RewardModel

_LISTED = 5
"""Number of jobs that an error names."""


class Replayed(NamedTuple):
    """A job that was run again.

    Args:
        record: The job's record in the experiment.
        result: The result of this run.
        provenance: Differences between today's model and rewards and those of the experiment.
    """

    record: JobRecord
    result: Result
    provenance: list[str]

    @property
    def same(self) -> bool:
        """Whether the sample equals the recorded one, to the last bit."""
        return digest(self.result.sample) == self.record.sha256

    @property
    def versions(self) -> list[str]:
        """Versions that differ from the recorded ones, which may explain a difference."""
        now = {"rollflow": rollflow.__version__, "torch": torch.__version__}
        then = self.record.versions
        return [f"{name} {then.get(name)}, now {version}" for name, version in now.items() if then.get(name) != version]


def find(path: Path, job: str) -> tuple[StoredExperiment, JobRecord]:
    """Find an experiment and the record of a finished job by its id or a prefix of it.

    Raises:
        RollflowError: If there is no such job or more than one, or if anything in the experiment is malformed.
    """
    stored = read_stored(path)
    done = stored.index.done
    matches = [record for name, record in done.items() if name.startswith(job)]
    if len(matches) != 1:
        where = "" if stored.pictures is None else "; ids are the names of the files in its folder 'images'"
        raise RollflowError(
            f"{len(matches)} finished jobs of '{path}' have an id that begins with '{job}', expected one{where}. "
            f"{_listed(matches or [*done.values()])}"
        )
    return stored, JobRecord.from_json(matches[0])


def _listed(records: Sequence[Mapping[str, Any]]) -> str:
    """The ids of some jobs, with what each is, for an error."""
    if not records:
        return "None of its jobs has finished"
    shown = [
        f"{one['id']} ({short(one['arm'])}, {short(one['prompt'])}, seed {one['seed']})" for one in records[:_LISTED]
    ]
    more = f" and {len(records) - _LISTED} more" if len(records) > _LISTED else ""
    return f"There are {', '.join(shown)}{more}"


def trial_of(config: dict[str, Any], record: JobRecord) -> Trial:
    """Return the trial that a record belongs to, with the choices that its search made then (``Search.prepared``)."""
    [arm] = [Arm(**arm) for arm in config["arms"] if arm["name"] == record.arm]
    method = record.plan.get("method")
    arm = replace(arm, method=method) if isinstance(method, str) else arm
    item = Item(record.prompt, record.category, record.ask)
    trial = Trial(arm, record.place, item, record.seed)
    if not record.rounds:
        return trial
    number = max(range(len(record.rounds)), key=lambda i: record.rounds[i].reward)
    return round_trial(trial, number, record.rounds[number].budget)


def refuse_untrusted(
    path: Path, config: Mapping[str, Any], arm: Arm, *, model: bool = True, reward: bool = True, held_out: bool = True
) -> None:
    """Refuse an experiment that names anything unsafe for a user who does not trust it; see ``api.trust``.

    Args:
        path: Folder or file of the experiment.
        config: Configuration of the experiment.
        arm: Arm of the job.
        model: Whether the model is taken from the experiment.
        reward: Whether the reward is taken from the experiment.
        held_out: Whether the held-out rewards are taken from the experiment.

    Raises:
        RollflowError: If it is unsafe; the message says what would be done, and that ``--trust`` allows it.
    """
    options = {"method": arm.method, "surrogate": arm.surrogate, "choose_by": arm.choose_by} | sampling_of(arm)
    options |= {"reward": config["reward"]} if reward else {}
    declared = options_of()
    choices = [(declared[name][1].find_registry(), text) for name, text in options.items()]
    choices += [(REWARDS, name) for name in config["held_out"] if held_out]
    loaded = {"name": config["model"], **config["pipeline"]} if config.get("pipeline") else config["model"]
    refuse_choices(
        f"'{path}'",
        loaded if model else None,
        [(registry, text) for registry, text in choices if registry is not None and isinstance(text, str)],
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads, which determines how matrix products divide their sums."""
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
    *,
    trusted: bool = False,
) -> Replayed:
    """Run one job of an experiment again.

    On a CPU the sample is the same to the last bit with the same versions on the same kind of processor, since the
    model is called with the same shapes and number of threads as in the experiment.

    Args:
        folder: Folder or packed file of the experiment.
        job: Id of the job or a prefix of it.
        model: Loaded model; None loads the one that the experiment names.
        reward: Reward that the search optimises; None loads the one that the experiment names.
        held_out: Held-out rewards; None loads those that the experiment names.
        trusted: Whether the experiment may name modules, files, models and servers; see ``refuse_untrusted``.

    Raises:
        RollflowError: If there is no such job, something cannot be loaded, or the experiment is unsafe and not trusted.
    """
    stored, record = find(folder, job)
    config, begun = stored.config, stored.provenance()
    trial = trial_of(config, record)
    if not trusted:
        given = {"model": model is None, "reward": reward is None, "held_out": held_out is None}
        refuse_untrusted(folder, config, trial.arm, **given)
    judges = [REWARDS.make(name) for name in config["held_out"]] if held_out is None else held_out
    if model is None:
        again_on_cpu = record.device == "cpu" and isinstance(find_model(config["model"]), PipelineSource)
        where = {"device": "cpu"} if again_on_cpu else {}
        model = load_model(model_of(config["model"], config.get("pipeline", {}) | where))
    reward = reward or REWARDS.make(config["reward"])
    again = job_of(trial, model, reward, judges, max_rows=config["max_rows"])
    with _threads(record.threads):
        [result] = completed(Engine(config["max_rows"], padded=True).run([again]))
    now = provenance_of(model, reward, judges)
    return Replayed(record, result, [] if begun is None else differing(begun, now))
