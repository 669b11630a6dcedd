"""A thread that computes rewards while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any


class Worker:
    """Runs what it is given, one after another, in a thread of its own that no one has to wait for at the end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """The answer of ``call``, once its turn has come."""
        answer: Future[Any] = Future()
        self._calls.put((call, answer))
        return answer

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
