"""Run one search, by itself or with an output folder."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rollflow.defaults import DEFAULT_MAX_GRAD_ROWS, DEFAULT_MAX_ROWS
from rollflow.engine import Engine, Interrupted, Job, JobsFailed, Observer, Result, load_checkpoint
from rollflow.engine.checkpoint.file import fingerprint, read_job
from rollflow.engine.result import job_digest
from rollflow.errors import BadCheckpoint, BadModel, BadReward, FolderError, RewardUnavailable, RollflowWarning, blamed
from rollflow.files.atomic import trouble
from rollflow.files.run_folder import RunFolder
from rollflow.output.checkpoints import CheckpointFile
from rollflow.output.folder_checks import CHECKPOINT, Planned, check_files, is_finished
from rollflow.output.outputs import choice, save_run, write_run
from rollflow.output.overoptimization import along
from rollflow.output.recorder import Recorder
from rollflow.runtime import interruption
from rollflow.runtime.interruption import Interruption

_EXPENSIVE = 60.0
"""Duration of a run, in seconds, from which replacing its result causes a warning."""


class RunOutcome(NamedTuple):
    """The outcome of a run in a folder.

    Args:
        content: Content of ``result.json``.
        result: Result; None if an earlier run was finished already and nothing was done.
        stopped: Interruption of the search, after which the best sample so far was written; None if there was none.
        replaced: Description of the other run whose result was replaced; None if none was.
    """

    content: dict[str, Any]
    result: Result | None
    stopped: BaseException | None = None
    replaced: str | None = None


def run(
    job: Job,
    observers: Iterable[Observer] = (),
    max_rows: int = DEFAULT_MAX_ROWS,
    max_grad_rows: int = DEFAULT_MAX_GRAD_ROWS,
) -> Result:
    """Run one job; if it fails, raise its own error instead of ``JobsFailed``.

    Raises:
        Interrupted: On Ctrl-C, with the best sample so far.
    """
    return run_alone(Engine(max_rows, observers, max_grad_rows=max_grad_rows), job)


def run_alone(engine: Engine, job: Job) -> Result:
    """Run one job on an engine, as ``run`` does."""
    try:
        [result] = engine.run([job])
    except JobsFailed as failed:
        error = failed.failures[0]
    else:
        return result
    raise error


def run_in_folder(
    plan: Planned,
    folder: Path,
    *,
    compare: bool = False,
    resume: bool = False,
    held_out_path: bool = False,
    observers: Sequence[Observer] = (),
    watching: Callable[[Job], AbstractContextManager[Observer | None]] = lambda _: nullcontext(),
) -> RunOutcome:
    """Load the model and reward, search, and write the files of the run.

    The plain sample is made first and by itself, so that the search gives the same bits with or without it. A search
    that is stopped by Ctrl-C leaves its best sample so far and, like a killed one, a checkpoint to resume from.

    Args:
        plan: Plan of the run.
        folder: Output folder, created if need be.
        compare: Whether to make the plain sample as well.
        resume: Whether to resume from the checkpoint in the folder; plots and filmstrip then begin there. The result
            of a finished run is left as it is.
        held_out_path: Whether held-out rewards also score the path that led to the sample.
        observers: Observers of the search.
        watching: Function from the job to the context in which it runs, which may provide one more observer.

    Raises:
        BadSetting: If the folder holds files of the user that the run would replace, or the checkpoint of a stopped
            run that is not to be resumed.
        FolderError: If another run is writing to the folder, or it cannot be written to.
        KeyboardInterrupt: On Ctrl-C before anything was scored, or after the result was written; its text says which.
    """
    with RunFolder(folder) as out:
        check_files(out, plan, compare=compare, resume=resume)
        outcome, recorder, checkpoint = _Outcome(), Recorder(), CheckpointFile(folder / CHECKPOINT)
        baseline, started, stopping = None, time.perf_counter(), None
        try:
            job = plan.job()
            with blamed("the identity of the model or the reward cannot be determined"):
                identity = fingerprint(job)  # now: when it is needed, there is already something to lose
            same_job = out.earlier is not None and out.earlier.get("job") == job_digest(identity)
            if resume and same_job and is_finished(out):
                _warn(f"the run is already finished; its result is in '{folder}'")
                with suppress(BadCheckpoint):  # usually there is none
                    if read_job(folder / CHECKPOINT) == identity:
                        checkpoint.remove()
                return RunOutcome(out.earlier or {}, None)
            if resume:
                job = replace(job, resume=load_checkpoint(job, folder / CHECKPOINT))
            elif out.earlier is not None and not same_job and _seconds(out) >= _EXPENSIVE:
                _warn(
                    f"the result of {_described(out)} in '{folder}' will be replaced; choose another folder (--out) to "
                    "keep both"
                )
            rows = plan.max_rows, plan.max_grad_rows
            if compare:
                baseline = run(plan.baseline(), (), *rows)
            started = time.perf_counter()
            with watching(job) as watcher:
                watchers = () if watcher is None else (watcher,)
                run(job, (outcome, recorder, *watchers, checkpoint, *observers), *rows)
        except (BadModel, BadReward, RewardUnavailable) as error:
            if not ((resume or checkpoint.written) and checkpoint.path.exists()):
                raise
            raise type(error)(
                f"{error}; '{checkpoint.path}' keeps the progress: when the cause is fixed, continue with --resume, "
                "or remove the file to start over"
            ) from error
        except (Interrupted, KeyboardInterrupt) as stopped:
            stopping = stopped
            failures = stopped.failures if isinstance(stopped, Interrupted) else {}
            if outcome.result is None:
                resumable = (resume or checkpoint.written) and checkpoint.path.exists()
                raise failures.get(0) or _nothing_kept(folder, resumable) from None
        result = outcome.result
        assert result is not None
        seconds = time.perf_counter() - started
        path = partial(along, result, recorder) if held_out_path and not result.interrupted else None
        try:
            content = save_run(out, result, recorder, seconds, baseline, path)
        except KeyboardInterrupt:
            if not out.kept:
                raise _nothing_kept(folder, checkpoint.written) from None
            if not result.interrupted:
                checkpoint.remove()
            missing = "plots and the path's scores" if held_out_path else "plots"
            raise Interruption(
                f"{interruption.described()} after the search, whose sample is in '{folder}'; {missing} may be missing"
            ) from None
        except OSError as error:
            raise FolderError(
                _kept_elsewhere(folder, error, checkpoint, result, recorder, seconds, baseline)
            ) from error
        for text in content["warnings"]:
            _warn(text)  # the engine's own warnings are still shown only once
        if not result.interrupted:
            checkpoint.remove()
        if checkpoint.error is not None:
            _warn(f"the checkpoint could not be written: {checkpoint.error}")
        replaced = _described(out) if out.earlier is not None and not same_job else None
        return RunOutcome(content, result, stopping, replaced)


def check_folder_of(plan: Planned, folder: Path, *, compare: bool, resume: bool) -> None:
    """Check a folder as ``run_in_folder`` does before it loads anything, without writing to it.

    Raises:
        BadSetting: As for ``run_in_folder``.
        FolderError: As for ``run_in_folder``.
        BadCheckpoint: If there is no checkpoint to resume from, or it is clear without weights that it belongs to
            another job.
    """
    check_files(RunFolder.inspect(folder), plan, compare=compare, resume=resume)


def _warn(message: str) -> None:
    warnings.warn(message, RollflowWarning, stacklevel=3)


def _described(out: RunFolder) -> str:
    """Describe the earlier run whose result is in a folder."""
    earlier = out.earlier or {}
    return f"another run ('{earlier.get('prompt')}', {choice(earlier, 'method')}, seed {earlier.get('seed')})"


def _seconds(out: RunFolder) -> float:
    seconds = (out.earlier or {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _kept_elsewhere(
    folder: Path,
    error: OSError,
    checkpoint: CheckpointFile,
    result: Result,
    recorder: Recorder,
    seconds: float,
    baseline: Result | None,
) -> str:
    """Save a result that cannot be written to its folder elsewhere, and say where."""
    what = f"{trouble(folder, error)}, so the result cannot be written"
    if checkpoint.written and checkpoint.error is None and checkpoint.path.exists():
        return f"{what}; nothing is lost: fix this, then run the same command with --resume"
    try:
        spare = Path(tempfile.mkdtemp(prefix="rollflow-result-"))
        write_run(spare, result, recorder, seconds, baseline)
    except OSError:
        return f"{what}, nor could it be written to a temporary folder; it is lost"
    return f"{what}; it is in '{spare}' instead"


class _Outcome(Observer):
    """Keeps the result as soon as it is complete, so that an interruption right after it does not lose it."""

    result: Result | None = None

    def completed(self, job: Job, result: Result) -> None:
        self.result = result


def _nothing_kept(folder: Path, checkpoint: bool) -> Interruption:
    hint = f"; the checkpoint is in '{folder}'; continue with --resume" if checkpoint else ""
    return Interruption(f"{interruption.described()} before there was a sample to keep{hint}")
