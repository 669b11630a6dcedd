"""Runs an experiment in a folder: many jobs over one model call, by any number of processes, whatever is killed."""

from __future__ import annotations

import hashlib
import math
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

import rollflow
from rollflow.api import load_model
from rollflow.bench.experiment import Experiment, Trial, job_of, model_of
from rollflow.bench.folder import LEASE, Folder, Tally
from rollflow.engine import Checkpoint, Ended, Engine, Job, Observer, Result, load_checkpoint, save_checkpoint
from rollflow.errors import BadCheckpoint, RollflowError
from rollflow.models import FlowModel
from rollflow.report.pictures import picture, png, still
from rollflow.rewards import REWARDS, RewardModel
from rollflow.search import Progress


class _Step(NamedTuple):
    """What a population spent on a step, and the parent of each particle; None is its own row."""

    nfe: int
    parents: list[int] | None


class _Watch(Observer):
    """Per job, what the journal tells of it beside its result, and its checkpoint from time to time.

    Args:
        folder: Where checkpoints go.
        every: Seconds between two of one job.
    """

    def __init__(self, folder: Folder, every: float) -> None:
        self.folder, self.every = folder, every
        self.names: dict[int, str] = {}
        self._steps: dict[int, list[dict[int, _Step]]] = {}
        self._saved: dict[int, float] = {}

    def saved(self, job: Job, population: int, progress: Progress) -> None:
        populations = self._steps.setdefault(id(job), [])
        while len(populations) <= population:
            populations.append({})
        parents = None if progress.ancestors is None else progress.ancestors.tolist()
        populations[population][progress.step] = _Step(progress.nfe_spent, parents)

    def checkpointed(self, job: Job, checkpoint: Checkpoint) -> None:
        now = time.monotonic()
        if now - self._saved.setdefault(id(job), now) >= self.every:
            save_checkpoint(job, checkpoint, self.folder.checkpoint(self.names[id(job)]))
            self._saved[id(job)] = now

    def forget(self, job: Job) -> dict[str, Any]:
        """What each population spent on each step and, where particles were drawn anew, from whom; nothing is kept."""
        for known in (self.names, self._saved):
            known.pop(id(job), None)
        populations = [[steps[step] for step in sorted(steps)] for steps in self._steps.pop(id(job), [])]
        told: dict[str, Any] = {"quota": [[step.nfe for step in steps] for steps in populations]}
        if any(step.parents for steps in populations for step in steps):
            told["ancestors"] = [[step.parents for step in steps] for steps in populations]
        return told


class _Heart:
    """Gives signs of life for the jobs of this process, in a thread of its own."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self.names = folder, set[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._stop.wait(LEASE / 8):
            self._folder.alive(list(self.names))

    def __enter__(self) -> _Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop.set()
        for name in list(self.names):
            self._folder.release(name)


class Runner:
    """An experiment, in a folder.

    A job that has been done is never done again. One that was begun, by a run that is no more, goes on from its last
    checkpoint. One that failed is tried again, ``retries`` times over all runs. Jobs that another process is at are
    left to it.

    Args:
        experiment: What to do.
        folder: Where; of the same experiment or new.
        retries: Of a job that fails.
        checkpoint_seconds: Between two checkpoints of one job.
        minutes: No job is begun after so long; None is no limit.
        command: That the experiment is begun by, for reports.
        told: Called with every job that has ended, and with how many of how many have.

    Raises:
        RollflowError: If the folder is another experiment's or cannot be written to; also what ``Plan`` raises of an
            arm, before anything loads.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        retries: int = 1,
        checkpoint_seconds: float = 10.0,
        minutes: float | None = None,
        command: str | None = None,
        told: Callable[[Trial, Ended, int, int], None] = lambda *_: None,
    ) -> None:
        self.experiment, self.retries, self.told = experiment, retries, told
        self.trials = list({trial.id: trial for trial in experiment.trials()}.values())  # a prompt may come twice
        names = [arm.name for arm in experiment.arms]
        if len(set(names)) < len(names):
            raise RollflowError(f"arms are told by their names, which differ; got {', '.join(names)}")
        self.folder = Folder(folder)
        self.folder.set_up(experiment.config(), command)
        self.tally = Tally(folder)
        self._until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._watch = _Watch(self.folder, checkpoint_seconds)

    def run(
        self,
        model: FlowModel | None = None,
        reward: RewardModel | None = None,
        held_out: list[RewardModel] | None = None,
    ) -> None:
        """Do what is left to do; ends when nothing is, or the time is over.

        Args:
            model: In place of that of the name, if it is loaded already; so with all.
            reward: That searches optimise.
            held_out: That no search sees.
        """
        model = model or load_model(model_of(self.experiment.model, self.experiment.pipeline))
        reward = reward or REWARDS.make(self.experiment.reward)
        judges = [REWARDS.make(name) for name in self.experiment.held_out] if held_out is None else held_out
        for one in (reward, *judges):
            one.load()
        engine = Engine(self.experiment.max_rows, [self._watch], padded=True)
        self.folder.tidy(self.tally.done)
        with _Heart(self.folder) as heart:
            while self._open():
                running: dict[int, Trial] = {}
                for ended in engine.stream(self._jobs(model, reward, judges, heart, running)):
                    self._end(running.pop(id(ended.job)), ended, heart)
                if time.monotonic() > self._until or not self._open():
                    return
                time.sleep(1)  # what is left is with other processes, or has failed and is tried again

    def _open(self) -> list[Trial]:
        """What is neither done nor given up."""
        self.tally.refresh()
        done, failures = self.tally.done, self.tally.failures
        return [t for t in self.trials if t.id not in done and len(failures.get(t.id, ())) <= self.retries]

    def _jobs(
        self,
        model: FlowModel,
        reward: RewardModel,
        judges: list[RewardModel],
        heart: _Heart,
        running: dict[int, Trial],
    ) -> Iterator[Job]:
        for trial in self._open():
            if time.monotonic() > self._until:
                return
            if not self.folder.claim(trial.id):
                continue
            heart.names.add(trial.id)
            self.tally.refresh()
            if trial.id in self.tally.done:  # by another, just before it was claimed
                self._let_go(trial, heart)
                continue
            job = job_of(trial, model, reward, judges)
            checkpoint = self.folder.checkpoint(trial.id)
            if checkpoint.exists():
                try:
                    job = replace(job, resume=load_checkpoint(job, checkpoint))
                except BadCheckpoint:
                    checkpoint.unlink()
            running[id(job)] = trial
            self._watch.names[id(job)] = trial.id
            yield job

    def _end(self, trial: Trial, ended: Ended, heart: _Heart) -> None:
        watched = self._watch.forget(ended.job)
        entry: dict[str, Any] = {"id": trial.id, "arm": trial.arm.name, "prompt": trial.item.prompt}
        entry |= {"ask": trial.item.ask, "category": trial.item.category, "place": trial.place, "seed": trial.seed}
        if ended.result is None or ended.result.interrupted:
            error = ended.error or (ended.result and ended.result.cause)
            self.folder.record(entry | {"error": f"{type(error).__name__}: {error}"})
        else:
            self.folder.keep_image(trial.id, png(picture(still(ended.result.sample))))
            self.folder.record(entry | told_of(ended.result) | watched)
            self.folder.checkpoint(trial.id).unlink(missing_ok=True)
        self._let_go(trial, heart)
        self.tally.refresh()
        self.told(trial, ended, len(self.tally.done), len(self.trials))

    def _let_go(self, trial: Trial, heart: _Heart) -> None:
        heart.names.discard(trial.id)
        self.folder.release(trial.id)


def digest(sample: torch.Tensor) -> str:
    """SHA-256 of a sample's bytes."""
    return hashlib.sha256(sample.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def told_of(result: Result) -> dict[str, Any]:
    """What the journal tells of a result: all that tables and plots are made of, and what a replay is held against."""
    spent = result.spent
    return {
        "reward": result.reward,
        "parts": result.parts,
        "held_out": {name: value if math.isfinite(value) else None for name, value in result.held_out.items()},
        "nfe": spent.nfe,
        "network_rows": spent.network_rows,
        "reward_calls": spent.reward_calls,
        "decodes": spent.decodes,
        "backward_passes": spent.backward_passes,
        "noise_level": result.noise_level,
        "seconds": round(result.seconds, 4),
        "trace": [[point.nfe, point.reward] for point in result.trace],
        "diagnostics": [_plain(one) for one in result.diagnostics],
        "sha256": digest(result.sample),
        "versions": {"rollflow": rollflow.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _plain(value: Any) -> Any:
    """Tensors as lists, numbers that JSON does not know as None."""
    if isinstance(value, torch.Tensor):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
