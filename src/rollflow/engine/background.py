"""A thread that computes rewards while the model runs, and the rewards that are on their way."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any

from rollflow.engine.scheduler import Slice

_SPELL = 0.25
"""Seconds."""


class Worker:
    """Runs what it is given, one after another, in a thread of its own that no one has to wait for at the end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._last: Future[Any] | None = None
        Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """The answer of ``call``, once its turn has come."""
        answer: Future[Any] = Future()
        self._last = answer
        self._calls.put((call, answer))
        return answer

    @property
    def busy(self) -> bool:
        """Whether it has not yet answered all that it was given."""
        return self._last is not None and not self._last.done()

    def close(self) -> None:
        """Let the thread end after what it was given."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, answer = item
            try:
                answer.set_result(call())
            except BaseException as error:  # whatever it is, it is raised where the answer is wanted
                answer.set_exception(error)


def awaited(answer: Future[Any]) -> Any:
    """What a future gives, waited for in short spells: a signal that comes just before a wait does not end that one."""
    while not wait([answer], timeout=_SPELL).done:
        pass
    return answer.result()


class Timed:
    """Answers that are computed when called, and how long that took."""

    def __init__(self, answer: Callable[[], list[Any]]) -> None:
        self.answer, self.seconds = answer, 0.0

    def __call__(self) -> list[Any]:
        begun = time.perf_counter()
        answers = self.answer()
        self.seconds += time.perf_counter() - begun
        return answers


class PendingReward(Timed):
    """Rewards that are computed elsewhere, for those who wait for them; called, it waits."""

    def __init__(self, fill_batches: list[Slice], work: Timed, worker: Worker) -> None:
        self.fill_batches, self._work, self._answers = fill_batches, work, worker.submit(work)

    def __call__(self) -> list[Any]:
        answers: list[Any] = awaited(self._answers)
        self.seconds = self._work.seconds
        return answers
