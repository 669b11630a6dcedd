"""One run of ``rollflow generate``, after its plan is made."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollflow.api import Plan, run
from rollflow.cli.progress import LiveProgress
from rollflow.engine import Interrupted, load_checkpoint
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
        KeyboardInterrupt: On Ctrl-C before anything was scored.
    """
    job = plan.job()
    if resume:
        job = replace(job, resume=load_checkpoint(job, folder / CHECKPOINT))
    baseline = None
    if compare:
        try:
            baseline = run(plan.baseline())
        except Interrupted:
            raise KeyboardInterrupt from None
    recorder, checkpoint = Recorder(), CheckpointFile(folder / CHECKPOINT)
    started = time.perf_counter()
    with LiveProgress(show and not any(one.interactive for one in (job.task.reward, *job.task.held_out))) as progress:
        try:
            result = run(job, (recorder, progress, checkpoint))
        except Interrupted as stopped:
            [best] = stopped.results
            if best is None:
                raise stopped.failures.get(0, KeyboardInterrupt()) from None
            result = best
    seconds = time.perf_counter() - started
    content = write_run(folder, result, recorder, seconds, baseline)
    if held_out_path:  # what is there is on disk, whatever happens while the path is scored
        content = summary(result, recorder, seconds, baseline, along(result, recorder))
        write(folder, {RESULT: encode(content).encode()})
    if checkpoint.error is not None:
        print(f"warning: the checkpoint could not be written: {checkpoint.error}", file=sys.stderr)
    return content
