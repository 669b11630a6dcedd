"""Running of experiments in folders: jobs share model calls, and any number of processes may take part."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rollflow.api import load_model
from rollflow.bench.probes.diversity import SampleDistance, distance_of, diversity_of
from rollflow.bench.run.experiment import Experiment, Trial
from rollflow.bench.run.folder import ExperimentFolder, refuse_other
from rollflow.bench.run.heartbeat import Heartbeat
from rollflow.bench.run.journal import JournalIndex
from rollflow.bench.run.leases import LEASE
from rollflow.bench.run.observer import JobObserver, resumed
from rollflow.bench.run.plans import check_size, costs_of, job_of, model_of, plan_of
from rollflow.bench.run.pools import RoundTrial, Standing, TrialPool, pooled_record, pools_of
from rollflow.bench.run.provenance import provenance_of
from rollflow.bench.run.reading import is_job
from rollflow.bench.run.records import identified, record_of
from rollflow.engine import Ended, Engine, Job, JobRecord
from rollflow.errors import BadSetting, FolderError, RewardUnavailable, RollflowError
from rollflow.files.atomic import discard
from rollflow.files.pictures import picture, png, still
from rollflow.models import FlowModel
from rollflow.rewards import REWARDS, RewardModel
from rollflow.runtime import interruption

_PATIENCE = 5
"""Seconds to wait for other processes before saying so."""


def check_limits(retries: int, minutes: float | None) -> None:
    """Raise a BadSetting if the number of retries or minutes is out of range."""
    if retries < 0:
        raise BadSetting(f"expected 0 or more retries, got {retries}")
    if minutes is not None and not 0 <= minutes < math.inf:
        raise BadSetting(f"expected 0 or more minutes, got {minutes}; without --minutes a run has no limit")


class Runner:
    """Runs the jobs of an experiment in a folder, together with other processes that do the same.

    A finished job is never run again. A job that an earlier run began continues from its last checkpoint. A failed job
    is retried up to ``retries`` times, counted over all runs, and then given up. Jobs that another process is working
    on are skipped.

    Jobs that share a pool are run in rounds. A round is recorded like a job, and the next ones are decided by the
    records when all of a pool's rounds have ended, so that processes agree on them; while others are at work on a
    round, a process takes jobs of other pools. A round that is given up counts as spent, and its job gets no further
    one. When a job gets no further round, its record is made of those of its rounds.

    Args:
        experiment: Experiment to run.
        folder: New folder, or folder of the same experiment.
        resume: Whether an existing experiment may be resumed.
        retries: Number of retries of a failed job.
        checkpoint_seconds: Time between two checkpoints of a job, in seconds.
        minutes: Time after which no new jobs are started, in minutes; None for no limit.
        only: Patterns with wildcards of the names of the arms whose jobs are run; empty for all arms.
        command: Command that begins the experiment, shown in reports.
        job_ended: Function called after every job with the job, its error or None, the number of finished jobs and
            the number of all jobs.
        measurement_ended: Function called after every measurement of diversity with the number of finished
            measurements and the number of all.
        warn: Function called, from any thread, with a description of a problem that does not stop the run.

    Raises:
        BadSetting: If a setting is out of range.
        RollflowError: If the folder holds another experiment, or any experiment and ``resume`` is false, or cannot be
            written to; or whatever ``Plan`` raises for an arm. Nothing has been loaded or written by then.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        resume: bool = True,
        retries: int = 1,
        checkpoint_seconds: float = 10.0,
        minutes: float | None = None,
        only: Sequence[str] = (),
        command: str | None = None,
        job_ended: Callable[[Trial, Exception | None, int, int], None] = lambda *_: None,
        measurement_ended: Callable[[int, int], None] = lambda *_: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        check_limits(retries, minutes)
        check_size(experiment)
        self.experiment, self.retries = experiment, retries
        self.job_ended, self.measurement_ended, self.warn = job_ended, measurement_ended, warn
        chosen = {arm.name for arm in experiment.arms_named(only)}
        trials = {trial.id: trial for trial in experiment.trials() if trial.arm.name in chosen}
        self.trials = list(trials.values())  # a prompt may occur twice
        names = [arm.name for arm in experiment.arms]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RollflowError(f"arm names must be distinct; got {twice!r} twice")
        costs_of(experiment)
        self.measurements = [one for one in experiment.measurements() if one[1].arm.name in chosen]
        refuse_other(folder, experiment.config(), resume=resume)  # before anything is written
        self.folder = ExperimentFolder(folder)
        self.folder.set_up(experiment.config(), command, resume=resume)
        self.index = JournalIndex(folder)
        self._pools: list[TrialPool] = []
        self._until = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._watch = JobObserver(self.folder, checkpoint_seconds, warn)

    def run(
        self,
        model: FlowModel | None = None,
        reward: RewardModel | None = None,
        held_out: list[RewardModel] | None = None,
    ) -> None:
        """Run the remaining jobs, then the remaining measurements, until all have ended or the time is up.

        However this ends, a later run of the same experiment continues every job from its last checkpoint.

        Args:
            model: Loaded model, in place of the one that the experiment names.
            reward: Reward that searches optimise, in place of the one that the experiment names.
            held_out: Held-out rewards, in place of those that the experiment names.

        Raises:
            RewardUnavailable: If the reward does not answer; this does not count as a failure of any job.
            FolderError: If the folder can no longer be used: it is full, moved, deleted or read-only.
            RollflowError: If the experiment was begun with other weights (the message names them), or if something
                cannot be loaded or measured.
        """
        model = model or load_model(model_of(self.experiment.model, self.experiment.pipeline))
        reward = reward or REWARDS.make(self.experiment.reward)
        judges = [REWARDS.make(name) for name in self.experiment.held_out] if held_out is None else held_out
        for one in (reward, *judges):
            one.load()
        spread = self.experiment.diversity
        distance = None if spread is None else distance_of(spread.distance)
        others = self.folder.identify(provenance_of(model, reward, judges))
        if others:
            self.warn(f"the experiment was begun with other versions: {'; '.join(others)}")
        self._pools = pools_of(self.experiment, self.trials, model, reward)
        engine = Engine(self.experiment.max_rows, [self._watch], padded=True)
        self._tidy()
        waited = 0
        with Heartbeat(self.folder, self.warn) as heartbeat:
            try:
                while self._open():
                    running: dict[int, Trial] = {}
                    known = len(self.index.done) + len(self.index.rounds)
                    for ended in engine.stream(self._jobs(model, reward, judges, heartbeat, running)):
                        waited = 0
                        with interruption.shielded():
                            self._end(running.pop(self._watch.id_of(ended.job)), ended, heartbeat)
                    if time.monotonic() > self._until or not self._open():
                        break
                    if self._pools and known < len(self.index.done) + len(self.index.rounds):
                        continue  # further rounds may be due
                    waited += 1
                    if waited == _PATIENCE:
                        self.warn(
                            f"other processes are working on the remaining jobs; jobs of a process without a heartbeat "
                            f"for {LEASE:.0f} s are taken over"
                        )
                    time.sleep(1)  # the remaining jobs are with other processes, or have failed and are retried
            except KeyboardInterrupt:
                interruption.wind_up()
                raise
            finally:
                self._watch.save_all()
            if spread is not None and distance is not None:
                self._measure(model, reward, distance, spread.trajectories, heartbeat)
        self._tidy()

    @property
    def given_up(self) -> list[Trial]:
        """Jobs that have failed too often to be retried."""
        failed = {name for one in self._standings() for name, rounds in one.over.items() if not rounds}
        return [t for t in self.trials if t.id not in self.index.done and (t.id in failed or self._has_failed(t.id))]

    @property
    def unspent(self) -> dict[str, int]:
        """NFE that finished pools have left, since all jobs reached their reward or no search is cheap enough."""
        accounts = {}
        for pool in self._pools:
            records = [self.index.done.get(trial.id) for trial in pool.trials]
            left = pool.total - sum(record["nfe"] for record in records if record is not None)
            if left and None not in records:
                accounts[f"{pool.trials[0].arm.name}, seed {pool.trials[0].seed}"] = left
        return accounts

    def _open(self) -> list[Trial]:
        """Return the jobs, or rounds of them, that are neither done nor given up."""
        self.index.refresh()
        pooled = {trial.id for pool in self._pools for trial in pool.trials}
        alone = [trial for trial in self.trials if trial.id not in pooled and not self._is_over(trial.id)]
        due = [trial for standing in self._standings() for trial in standing.due]
        ended = self._to_conclude()
        return [*alone, *due, *(trial for trial in self.trials if trial.id in ended)]

    def _standings(self) -> list[Standing]:
        return [pool.standing(self.index.rounds, self._has_failed) for pool in self._pools]

    def _to_conclude(self) -> dict[str, list[str]]:
        """Return the ids of pooled jobs that are over but have no record yet, with those of their rounds."""
        over = {name: rounds for standing in self._standings() for name, rounds in standing.over.items()}
        return {name: rounds for name, rounds in over.items() if rounds and name not in self.index.done}

    def _has_failed(self, name: str) -> bool:
        return len(self.index.failures.get(name, ())) > self.retries

    def _is_over(self, name: str) -> bool:
        return name in self.index.done or name in self.index.rounds or self._has_failed(name)

    def _tidy(self) -> None:
        self.index.refresh()
        measured = [name for name, _ in self.measurements if name in self.index.diversity]
        ids = {trial.id for trial in self.trials}
        rounds = [name for name in self.index.rounds if is_job(name) and name.partition("-")[0] in ids]
        self.folder.tidy([name for name in ids if self._is_over(name)] + rounds + measured)
        for name in rounds:
            if name.partition("-")[0] in self.index.done:
                discard(self.folder.image(name))

    def _jobs(
        self,
        model: FlowModel,
        reward: RewardModel,
        judges: list[RewardModel],
        heartbeat: Heartbeat,
        running: dict[int, Trial],
    ) -> Iterator[Job]:
        trials, rounds = self._open(), self._to_conclude()
        for trial in trials:
            if time.monotonic() > self._until:
                return
            if not heartbeat.take(trial.id):
                continue
            if trial.id in rounds:
                self._conclude(trial, rounds[trial.id], heartbeat)
                continue
            self.index.refresh()
            if self._is_over(trial.id):  # another process ended it just before the lease was taken
                heartbeat.give_back(trial.id)
                continue
            try:
                job = job_of(trial, model, reward, judges, max_rows=self.experiment.max_rows)
                job = resumed(job, self.folder.checkpoint(trial.id), self.warn)
            except RewardUnavailable:
                raise
            except Exception as error:
                self._fail(trial, error, heartbeat)
                continue
            running[self._watch.id_of(job)] = trial
            self._watch.begin(job, trial.id)
            yield job

    def _conclude(self, trial: Trial, rounds: list[str], heartbeat: Heartbeat) -> None:
        """Record a pooled job that gets no further round, with the picture of its best one."""
        self.index.refresh()
        if trial.id not in self.index.done:
            records = [JobRecord.from_json(self.index.rounds[name]) for name in rounds]
            best = max(records, key=lambda one: one.reward)
            self.folder.keep_image(trial.id, self.folder.image(best.id).read_bytes())
            self.folder.record(pooled_record(trial, records).to_json())
        for name in rounds:
            discard(self.folder.image(name))
        self._let_go(trial, None, heartbeat)

    def _measure(
        self, model: FlowModel, reward: RewardModel, distance: SampleDistance, trajectories: int, heartbeat: Heartbeat
    ) -> None:
        """Measure the diversity for every prompt; measurements that another process is working on are skipped."""
        for name, trial in self.measurements:
            if time.monotonic() > self._until:
                return
            if name in self.index.diversity or not heartbeat.take(name):
                continue
            try:
                self.index.refresh()
                if name not in self.index.diversity:
                    plan = plan_of(trial, model, reward, [], max_rows=self.experiment.max_rows)
                    value = diversity_of(model, plan.prompt, plan.sampler, distance, trajectories, plan.seed)
                    self.folder.record(identified(trial) | {"id": name, "diversity": value})
            finally:
                heartbeat.give_back(name)
            self.index.refresh()
            self.measurement_ended(len(self.index.diversity), len(self.measurements))

    def _end(self, trial: Trial, ended: Ended, heartbeat: Heartbeat) -> None:
        result, error, moved = ended.result, ended.error, self._watch.has_moved(ended.job)
        if result is not None and result.interrupted:
            error = result.cause or RollflowError("interrupted")
        if isinstance(error, RewardUnavailable):
            raise error
        account = self._watch.account(ended.job)
        if result is not None and error is None:
            try:
                self.folder.keep_image(trial.id, png(picture(still(result.sample))))
                number = {"round": trial.number} if isinstance(trial, RoundTrial) else {}
                self.folder.record(record_of(trial, result, account).to_json() | number)
            except FolderError:
                raise
            except Exception as unfit:  # the sample is no picture, or diagnostics have no JSON form
                error = unfit
        self._watch.forget(ended.job)
        if error is None:
            discard(self.folder.checkpoint(trial.id))
            self._let_go(trial, None, heartbeat)
        elif ended.job.resume is not None and not moved:  # its checkpoint may be at fault: run it again without
            discard(self.folder.checkpoint(trial.id))
            heartbeat.give_back(trial.id)
        else:
            self._fail(trial, error, heartbeat)

    def _fail(self, trial: Trial, error: Exception, heartbeat: Heartbeat) -> None:
        self.folder.record(identified(trial) | {"error": f"{type(error).__name__}: {error}"})
        self._let_go(trial, error, heartbeat)

    def _let_go(self, trial: Trial, error: Exception | None, heartbeat: Heartbeat) -> None:
        heartbeat.give_back(trial.id)
        self.index.refresh()
        if error is None and isinstance(trial, RoundTrial):
            return
        self.job_ended(trial, error, len(self.index.done), len(self.trials))
