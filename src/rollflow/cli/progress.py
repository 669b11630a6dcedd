"""A live progress line of a search."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from rollflow.engine import Job, Observer, Result, Spending
from rollflow.files.printable import printable
from rollflow.requests import Reward
from rollflow.search import Progress as Step


class LiveProgress(Observer):
    """Shows on stderr the NFE spent, the speed, the current step with its noise level, and the best reward.

    A context manager around one run. Nothing is shown if stderr is not a terminal.

    Args:
        show: Whether to show anything.
        console: Console to write to; None is stderr.
    """

    def __init__(self, show: bool = True, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("NFE  {task.fields[rate]:.1f}/s  step {task.fields[step]}  best {task.fields[best]:.4g}"),
            console=console,
            disable=not (show and console.is_terminal),
            transient=True,
        )

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.stop()

    def admitted(self, job: Job) -> None:
        self._started, self._nfe, self._kept = time.perf_counter(), 0, 0
        self._spent = {i: one.spent.nfe for i, one in enumerate(job.resume.populations)} if job.resume else {}
        self._best = float("-inf")
        self._reached: dict[int, Step] = {}
        self._dynamics = job.dynamics
        self._task = self._bar.add_task(printable(job.search.name), total=job.nfe, rate=0.0, step="-", best=self._best)

    def scored(self, job: Job, population: int, request: Reward, rewards: Tensor, spent: Spending) -> None:
        self._best = max(self._best, float(rewards.max()))
        self._spent[population] = spent.nfe
        self._show(sum(self._spent.values()))

    def saved(self, job: Job, population: int, progress: Step) -> None:
        self._reached[population] = progress
        self._kept += progress.nfe_spent  # the only sign of progress of methods that do not score on the way
        self._show(self._kept)

    def completed(self, job: Job, result: Result) -> None:
        self._show(result.spent.nfe)

    def _show(self, nfe: int) -> None:
        self._nfe = max(self._nfe, nfe)
        seconds = max(time.perf_counter() - self._started, 1e-9)
        last = min(self._reached.values(), key=lambda progress: progress.step, default=None)
        self._bar.update(
            self._task,
            completed=self._nfe,
            rate=self._nfe / seconds,
            step="-" if last is None else f"{last.step} (noise {last.level(self._dynamics):.2f})",
            best=self._best,
        )
