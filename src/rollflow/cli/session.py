"""One run of ``rollflow generate``, after its plan is made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rollflow.api import Plan, run
from rollflow.cli.progress import LiveProgress
from rollflow.engine import Interrupted
from rollflow.report import Recorder, write_run


def execute(plan: Plan, folder: Path, *, compare: bool, show: bool) -> dict[str, Any]:
    """Load, search and write the files; the content of ``result.json``.

    The baseline runs first and by itself, so that the search is the same, to the last bit, with it or without it.
    A search stopped by Ctrl-C leaves its best sample so far.

    Args:
        plan: What to do.
        folder: Where the files go.
        compare: Whether to make the baseline.
        show: Whether to show the progress.

    Raises:
        KeyboardInterrupt: On Ctrl-C before anything was scored.
    """
    job = plan.job()
    baseline = None
    if compare:
        try:
            baseline = run(plan.baseline())
        except Interrupted:
            raise KeyboardInterrupt from None
    recorder = Recorder()
    started = time.perf_counter()
    with LiveProgress(show) as progress:
        try:
            result = run(job, (recorder, progress))
        except Interrupted as stopped:
            [best] = stopped.results
            if best is None:
                raise stopped.failures.get(0, KeyboardInterrupt()) from None
            result = best
    return write_run(folder, result, recorder, time.perf_counter() - started, baseline)
