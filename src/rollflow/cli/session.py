"""One run of ``rollflow generate``, after its plan is made."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rollflow.api import Plan, run
from rollflow.canonical import stable_repr
from rollflow.cli.errors import warn
from rollflow.cli.progress import LiveProgress
from rollflow.engine import Interrupted, Job, Observer, Result, load_checkpoint
from rollflow.engine.checkpoint import differences, fingerprint, is_checkpoint, read_job
from rollflow.errors import (
    BadCheckpoint,
    BadModel,
    BadReward,
    BadSetting,
    FolderError,
    RewardUnavailable,
    RollflowWarning,
    blamed,
)
from rollflow.files.atomic import trouble
from rollflow.models import Source, find_model
from rollflow.output.checkpoints import CheckpointFile
from rollflow.output.outputs import BASELINE, FILMSTRIP, IMAGE, TRACE, job_digest, save_run, write_run
from rollflow.output.overoptimization import along
from rollflow.output.recorder import Recorder
from rollflow.output.run_folder import RESULT, RunFolder
from rollflow.runtime import interruption
from rollflow.runtime.interruption import Interruption

CHECKPOINT = "checkpoint.pt"
_EXPENSIVE = 60.0
"""Seconds of a run whose result is not replaced without a warning before."""


def execute(
    plan: Plan, folder: Path, *, compare: bool, resume: bool, show: bool, held_out_path: bool = False
) -> dict[str, Any]:
    """Load, search and write the files; the content of ``result.json``.

    The baseline runs first and by itself, so that the search is the same, to the last bit, with it or without it.
    A search stopped by Ctrl-C leaves its best sample so far, and, like one that was killed, a checkpoint to go on from.

    Args:
        plan: What to do.
        folder: Where the files go.
        compare: Whether to make the baseline.
        resume: Whether to go on from the checkpoint in the folder; plots and filmstrip then begin there. Of a run that
            is finished the result is what is there.
        show: Whether to show the progress.
        held_out_path: Whether held-out rewards score the path that led to the sample, too.

    Raises:
        BadSetting: If the folder holds files of the user's that the run would replace, or the checkpoint of a run that
            was stopped and is not resumed.
        FolderError: If another run is writing to the folder, or it cannot be written to.
        KeyboardInterrupt: On Ctrl-C before anything was scored, or after all was written that the search has found; it
            says so.
    """
    with RunFolder(folder) as out:
        _check_files(out, plan, compare=compare, resume=resume)
        outcome, recorder, checkpoint = _Outcome(), Recorder(), CheckpointFile(folder / CHECKPOINT)
        baseline, started = None, time.perf_counter()
        try:
            job = plan.job()
            with blamed("the identity of the model or the reward cannot be had"):
                identity = fingerprint(job)  # now, since it is needed when there is something to lose
            of_job = out.earlier is not None and out.earlier.get("job") == job_digest(identity)
            if resume and of_job and _is_finished(out):
                warn(f"the run is finished already; its result is in '{folder}'")
                with suppress(BadCheckpoint):  # none, as a rule
                    if read_job(folder / CHECKPOINT) == identity:
                        checkpoint.remove()
                return out.earlier or {}
            if resume:
                job = replace(job, resume=load_checkpoint(job, folder / CHECKPOINT))
            elif out.earlier is not None and not of_job and _seconds(out) >= _EXPENSIVE:
                warn(f"the result of {_described(out)} in '{folder}' is replaced; choose another --out to keep both")
            if compare:
                baseline = run(plan.baseline())
            asks = any(one.interactive for one in (job.task.reward, *job.task.held_out))
            started = time.perf_counter()
            with LiveProgress(show and not asks) as progress:
                run(job, (outcome, recorder, progress, checkpoint))
        except (BadModel, BadReward, RewardUnavailable) as error:
            if not ((resume or checkpoint.written) and checkpoint.path.exists()):
                raise
            raise type(error)(
                f"{error}; '{checkpoint.path}' keeps how far it came: go on with --resume when the cause of this is "
                "mended, or remove it to begin anew"
            ) from error
        except (Interrupted, KeyboardInterrupt) as stopped:
            failures = stopped.failures if isinstance(stopped, Interrupted) else {}
            if outcome.result is None:
                goes_on = (resume or checkpoint.written) and checkpoint.path.exists()
                raise failures.get(0) or _nothing_kept(folder, goes_on) from None
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
            warnings.warn(text, RollflowWarning, stacklevel=2)  # the engine's own are shown once all the same
        if not result.interrupted:
            checkpoint.remove()
        if checkpoint.error is not None:
            warn(f"the checkpoint could not be written: {checkpoint.error}")
        if show and out.earlier is not None and not of_job:
            print(f"replaced the result of {_described(out)}; choose another --out to keep both")
        return content


def check(plan: Plan, folder: Path, *, compare: bool, resume: bool) -> None:
    """Refuse what ``execute`` would refuse of a folder before it loads anything, without making or changing a file.

    Raises:
        BadSetting: As ``execute``.
        FolderError: As ``execute``.
        BadCheckpoint: If there is nothing to resume, or another job's, as far as that is known without weights.
    """
    _check_files(RunFolder.seen(folder), plan, compare=compare, resume=resume)


def _described(out: RunFolder) -> str:
    """The run whose result is in a folder already, in words."""
    told = out.earlier or {}
    return f"another run ('{told.get('prompt')}', {told.get('method')}, seed {told.get('seed')})"


def _seconds(out: RunFolder) -> float:
    seconds = (out.earlier or {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _check_files(out: RunFolder, plan: Plan, *, compare: bool, resume: bool) -> None:
    """Refuse a folder in which the run would replace what is not its own to replace, or has nothing to go on from.

    Raises:
        BadSetting: If there are files of the user with the names of those of a run, or, unless it is resumed, the
            checkpoint of a run that was stopped.
        BadCheckpoint: If it is resumed from no checkpoint, or from another job's, as far as that is known already.
    """
    folder, path = out.path, out.path / CHECKPOINT
    foreign = out.foreign([IMAGE, TRACE, FILMSTRIP, RESULT, *([BASELINE] if compare else [])])
    if os.path.lexists(path) and not is_checkpoint(path) and not resume:
        foreign.append(CHECKPOINT)
    if foreign:
        raise BadSetting(
            f"'{folder}' holds {', '.join(foreign)}, which rollflow did not write, or which changed since (earlier "
            "releases did not mark their files); move that away, or choose another --out"
        )
    if resume:
        _check_resumed(out, plan)
        return
    if not os.path.lexists(path):
        return
    try:
        theirs = read_job(path)
    except BadCheckpoint as error:
        raise BadSetting(f"{error}; remove it, or choose another --out") from None
    if _is_finished(out) and out.earlier is not None and out.earlier.get("job") == job_digest(theirs):
        return  # killed after its result was written: the checkpoint is of no more use
    different = _differences(theirs, plan)
    if different:
        raise BadSetting(
            f"'{folder}' holds the checkpoint of another run that was stopped ({'; '.join(different)}); go on with "
            f"that by its options and --resume, remove '{path}', or choose another --out"
        )
    raise BadSetting(
        f"'{folder}' holds the checkpoint of such a run that was stopped (its model is {theirs.get('model', '')[:80]}, "
        f"its reward {theirs.get('reward', '')[:80]}); go on with it by --resume, remove '{path}' to begin anew, or "
        "choose another --out"
    )


def _check_resumed(out: RunFolder, plan: Plan) -> None:
    """Refuse to go on from what is no checkpoint of such a run; whether it is of the same weights is seen later.

    Raises:
        BadCheckpoint: If it is missing, damaged or another job's.
    """
    path, told = out.path / CHECKPOINT, out.earlier or {}
    ours = (str(plan.prompt), plan.seed, plan.nfe)
    if _is_finished(out) and (told.get("prompt"), told.get("seed"), told.get("nfe_budget")) == ours:
        return  # as it seems, there is nothing left to do
    different = _differences(read_job(path), plan)
    if different:
        raise BadCheckpoint(f"'{path}' belongs to another job: {'; '.join(different)}")


def _differences(theirs: Mapping[str, str], plan: Plan) -> list[str]:
    """Where a checkpoint's job is another than that of a plan, as far as that is known before anything is loaded."""
    ours = {
        "prompt": str(plan.prompt),
        "search": stable_repr(plan.search),
        "sampler": stable_repr(plan.sampler),
        "nfe": str(plan.nfe),
        "seed": str(plan.seed),
    }
    different = differences({key: theirs.get(key, "") for key in ours}, ours)
    named = {"model": find_model(plan.model) if isinstance(plan.model, str) else plan.model}
    for key, one in (named | {"reward": plan.declared_reward}).items():
        name = _begins(one)
        if name is not None and theirs.get(key, "").partition("(")[0] != name:
            different.append(f"{key} was {theirs.get(key, '')[:80]}, is {name}")
    return different


def _begins(one: Any) -> str | None:
    """The name that the identity of rollflow's own model or reward begins with; None where that is not known."""
    kind = one if isinstance(one, type) else type(one)
    known = kind.__module__.startswith("rollflow.") and not getattr(one, "remote", False)
    name = getattr(one, "name", None)
    return name if known and isinstance(name, str) and not isinstance(one, Source) else None


def _is_finished(out: RunFolder) -> bool:
    """Whether the folder holds the result of a run that came to its end."""
    told = out.earlier
    if told is None or told.get("interrupted", True):
        return False
    image = str(told.get("image"))
    return (out.path / image).exists() and not out.foreign([image])


def _kept_elsewhere(
    folder: Path,
    error: OSError,
    checkpoint: CheckpointFile,
    result: Result,
    recorder: Recorder,
    seconds: float,
    baseline: Result | None,
) -> str:
    """Keep a result that cannot be written to its folder, and say where it is."""
    what = f"{trouble(folder, error)}, so that the result cannot be written"
    if checkpoint.written and checkpoint.error is None and checkpoint.path.exists():
        return f"{what}; nothing is lost: put that right, and the same command with --resume writes it"
    try:
        spare = Path(tempfile.mkdtemp(prefix="rollflow-result-"))
        write_run(spare, result, recorder, seconds, baseline)
    except OSError:
        return f"{what}, nor to a temporary folder; it is lost"
    return f"{what}; it is in '{spare}' instead"


class _Outcome(Observer):
    """Keeps the result from the moment it is there, so that an interruption right after it does not lose it."""

    result: Result | None = None

    def completed(self, job: Job, result: Result) -> None:
        self.result = result


def _nothing_kept(folder: Path, checkpoint: bool) -> Interruption:
    goes_on = f"; the checkpoint is in '{folder}'; go on with --resume" if checkpoint else ""
    return Interruption(f"{interruption.described()} before there was a sample to keep{goes_on}")
