"""Rewards that are computed in the background while the model runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from rollflow.engine.scheduler import Batch
from rollflow.rewards.base import RewardModel

T = TypeVar("T")

_POLL_SECONDS = 0.25


class Timed:
    """A function of no arguments that measures how long it takes.

    Args:
        function: The function.

    Attributes:
        seconds: Time of all calls so far.
    """

    def __init__(self, function: Callable[[], list[Any]]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self) -> list[Any]:
        begun = time.perf_counter()
        answers = self.function()
        self.seconds += time.perf_counter() - begun
        return answers


class Worker:
    """Runs functions one after another in a daemon thread, which does not keep the process alive."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._last: Future[Any] | None = None
        Thread(target=self._work, daemon=True).start()

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function after those submitted before."""
        answer: Future[Any] = Future()
        self._last = answer
        self._calls.put((function, answer))
        return answer

    @property
    def busy(self) -> bool:
        """Whether a submitted function has not yet ended."""
        return self._last is not None and not self._last.done()

    def close(self) -> None:
        """Let the thread end once it has run all submitted functions."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            function, answer = item
            try:
                answer.set_result(function())
            except BaseException as error:  # raised again where the answer is awaited
                answer.set_exception(error)


class PendingReward(Timed):
    """A batch of rewards that is being computed; calling it waits for the answers.

    Args:
        batch: The batch.
        work: Function that computes its rewards.
        worker: Worker that runs the function.
    """

    def __init__(self, batch: Batch, work: Timed, worker: Worker) -> None:
        super().__init__(work)
        self.batch, self._work, self._answers = batch, work, worker.submit(work)

    def __call__(self) -> list[Any]:
        answers: list[Any] = _awaited(self._answers)
        self.seconds = self._work.seconds
        return answers


class Background:
    """One worker for each place that computes rewards (``RewardModel.place``), shared by all rewards of that place."""

    def __init__(self) -> None:
        self._workers: dict[Hashable, Worker] = {}

    def dispatch(self, batch: Batch, score: Callable[[], list[Any]]) -> PendingReward:
        """Compute the rewards of a batch by ``score``."""
        place = batch.slices[0].query.task.objective.place
        if place not in self._workers:
            self._workers[place] = Worker()
        return PendingReward(batch, Timed(score), self._workers[place])

    def call(self, reward: RewardModel, function: Callable[[], T]) -> T:
        """Call a function, in the worker's thread if the reward has a worker."""
        worker = self._workers.get(reward.place)
        if worker is None:
            return function()
        answer: T = _awaited(worker.submit(function))
        return answer

    @property
    def busy(self) -> bool:
        """Whether any worker is busy."""
        return any(worker.busy for worker in self._workers.values())

    def close(self) -> None:
        """Let all threads end."""
        for worker in self._workers.values():
            worker.close()


def _awaited(answer: Future[Any]) -> Any:
    """Wait for a future and return its result, in short waits, since a signal just before a wait does not end it."""
    while not wait([answer], timeout=_POLL_SECONDS).done:
        pass
    return answer.result()
