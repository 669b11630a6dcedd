"""One run of ``rollflow generate``, after its plan is made."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollflow import interruption
from rollflow.api import Plan, run
from rollflow.cli.errors import warn
from rollflow.cli.progress import LiveProgress
from rollflow.engine import Interrupted, Job, Observer, Result, load_checkpoint
from rollflow.interruption import Interruption
from rollflow.report import CheckpointFile, Recorder, summary, write, write_run
from rollflow.report.outputs import RESULT, encode
from rollflow.report.overoptimization import along

CHECKPOINT = "checkpoint.pt"


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
        resume: Whether to go on from the checkpoint in the folder; plots and filmstrip then begin there.
        show: Whether to show the progress.
        held_out_path: Whether held-out rewards score the path that led to the sample, too.

    Raises:
        KeyboardInterrupt: On Ctrl-C before anything was scored, or after all was written that the search has found; it
            says so.
    """
    outcome, recorder, checkpoint = _Outcome(), Recorder(), CheckpointFile(folder / CHECKPOINT)
    baseline, started = None, time.perf_counter()
    try:
        job = plan.job()
        if resume:
            job = replace(job, resume=load_checkpoint(job, folder / CHECKPOINT))
        if compare:
            baseline = run(plan.baseline())
        asks = any(one.interactive for one in (job.task.reward, *job.task.held_out))
        started = time.perf_counter()
        with LiveProgress(show and not asks) as progress:
            run(job, (outcome, recorder, progress, checkpoint))
    except (Interrupted, KeyboardInterrupt) as stopped:
        failures = stopped.failures if isinstance(stopped, Interrupted) else {}
        if outcome.result is None:
            goes_on = (resume or checkpoint.written) and checkpoint.path.exists()
            raise failures.get(0) or _nothing_kept(folder, goes_on) from None
    result = outcome.result
    assert result is not None
    seconds = time.perf_counter() - started
    try:
        content = write_run(folder, result, recorder, seconds, baseline)
        if held_out_path and not result.interrupted:  # what is there is on disk, whatever happens on the way
            content = summary(result, recorder, seconds, baseline, along(result, recorder))
            write(folder, {RESULT: encode(content).encode()})
        if not result.interrupted:
            checkpoint.remove()
    except KeyboardInterrupt:
        checkpoint.remove()
        missing = "plots and the path's scores" if held_out_path else "plots"
        raise Interruption(
            f"{interruption.described()} after the search, whose sample is in '{folder}'; {missing} may be missing"
        ) from None
    if checkpoint.error is not None:
        warn(f"the checkpoint could not be written: {checkpoint.error}")
    return content


class _Outcome(Observer):
    """Keeps the result from the moment it is there, so that an interruption right after it does not lose it."""

    result: Result | None = None

    def completed(self, job: Job, result: Result) -> None:
        self.result = result


def _nothing_kept(folder: Path, checkpoint: bool) -> Interruption:
    goes_on = f"; the checkpoint is in '{folder}'; go on with --resume" if checkpoint else ""
    return Interruption(f"{interruption.described()} before there was a sample to keep{goes_on}")
