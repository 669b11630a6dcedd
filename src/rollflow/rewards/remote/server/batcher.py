"""Batching of many requests into as few calls of one reward as possible."""

from __future__ import annotations

import logging
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread

import torch

from rollflow.errors import BadReward, RewardUnavailable, RollflowError
from rollflow.rewards.base import RewardModel
from rollflow.rewards.remote.server.limits import Limits, Refusal
from rollflow.rewards.remote.wire import SampleBatch
from rollflow.rewards.scoring import is_out_of_memory, scored

_LOG = logging.getLogger(__name__)
_REMEMBERED = 1024


@dataclass(eq=False)
class _Waiting:
    """A request and the future of its scores."""

    batch: SampleBatch
    scores: Future[list[float]] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[torch.Size, torch.dtype]:
        """Shape and type of a sample; requests share a call only if these are equal."""
        return self.batch.samples.shape[1:], self.batch.samples.dtype


class Batcher:
    """Scores requests in a thread of its own.

    Requests that arrive during a call are candidates for the next one. It takes the request that has waited longest,
    and all others of the same shape and type that fit completely into the reward's ``batch_size`` and into ``numbers``;
    it does not wait for more. If a call raises an exception, its requests are scored one by one, so that only the
    faulty one fails. Every request is answered, whatever ends the thread. After that, only its scores stay in memory.

    Args:
        reward: The reward, which only that thread calls.
        numbers: Largest number of values in the samples of requests that share a call.
    """

    def __init__(self, reward: RewardModel, numbers: int = 3 * Limits.pixels) -> None:
        self.reward = reward
        self.numbers = numbers
        self._arrived: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._closed = self._ended = False
        self._lock = Lock()  # guards the next two, and _ended
        self._open: set[Future[list[float]]] = set()
        self._remembered: OrderedDict[bytes, Future[list[float]]] = OrderedDict()
        self._thread = Thread(target=self._work, name="rollflow-reward", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether submitted requests will be scored."""
        return not self._ended

    def submit(self, batch: SampleBatch, key: bytes | None = None) -> Future[list[float]]:
        """Submit a batch.

        Args:
            batch: Samples and prompts.
            key: Identifier of a repeated request (``bodies.fingerprint``), so that it is not scored again; the last
                ones that did not fail are remembered.

        Returns:
            A future of the scores, or of a ``Refusal``.

        Raises:
            Refusal: 503 if the thread has ended.
        """
        waiting = _Waiting(batch)
        with self._lock:
            self.check()
            known = None if key is None else self._remembered.get(key)
            if known is not None:
                return known
            self._open.add(waiting.scores)
            if key is not None:
                self._remembered[key] = waiting.scores
                if len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
        waiting.scores.add_done_callback(partial(self._settle, key))
        self._arrived.put(waiting)
        return waiting.scores

    def check(self) -> None:
        """Check that the thread is alive.

        Raises:
            Refusal: 503 if it has ended.
        """
        if not self.alive:
            raise _dead()

    def close(self) -> None:
        """Let the thread end after it has scored all submitted requests."""
        self._arrived.put(None)

    def _settle(self, key: bytes | None, scores: Future[list[float]]) -> None:
        with self._lock:
            self._open.discard(scores)
            if key is not None and scores.exception() and self._remembered.get(key) is scores:
                del self._remembered[key]

    def _work(self) -> None:
        waiting: list[_Waiting] = []
        try:
            while self._receive(waiting):
                self._answer(self._take(waiting))
        finally:
            with self._lock:
                self._ended = True
                left = list(self._open)
            for scores in left:
                scores.set_exception(_dead())

    def _receive(self, waiting: list[_Waiting]) -> bool:
        """Add the requests that have arrived, or wait for the next one; returns whether there is anything to score."""
        while not (self._closed or (waiting and self._arrived.empty())):
            arrived = self._arrived.get()
            if arrived is None:
                self._closed = True
            else:
                waiting.append(arrived)
        return bool(waiting)

    def _take(self, waiting: list[_Waiting]) -> list[_Waiting]:
        """Remove from ``waiting`` the requests to score together, and return them."""
        together, rows = waiting[:1], len(waiting[0].batch.prompts)
        most = min(self.reward.batch_size, self.numbers // waiting[0].batch.samples[0].numel())
        for request in waiting[1:]:
            more = rows + len(request.batch.prompts)
            if request.kind == together[0].kind and more <= most:
                together.append(request)
                rows = more
        waiting[:] = [request for request in waiting if request not in together]
        return together

    def _answer(self, requests: list[_Waiting]) -> None:
        try:
            parts = self._scored(requests)
        except Exception as error:
            if len(requests) == 1:
                requests[0].scores.set_exception(_refusal(self.reward, error))
                return
            # not retried here, where the error's frames still hold memory that may have run out
        else:
            for request, part in zip(requests, parts, strict=True):
                request.scores.set_result(part)
            return
        for request in requests:
            self._answer([request])

    def _scored(self, requests: list[_Waiting]) -> list[list[float]]:
        samples = torch.cat([request.batch.samples for request in requests])
        prompts = [prompt for request in requests for prompt in request.batch.prompts]
        parts = torch.split(scored(self.reward, samples, prompts), [len(request.batch.prompts) for request in requests])
        return [part.tolist() for part in parts]


def _dead() -> Refusal:
    return Refusal(503, "the scoring thread has ended; restart the server")


def _refusal(reward: RewardModel, error: BaseException) -> Refusal:
    """Convert an error to a refusal, without its traceback, whose frames hold the samples."""
    if isinstance(error, BadReward) and error.__cause__ is not None:  # the reward's own exception
        error = error.__cause__
    if is_out_of_memory(error):
        return Refusal(413, f"reward '{reward.name}' ran out of memory; send fewer or smaller samples")
    if isinstance(error, RewardUnavailable):
        return Refusal(503, str(error))
    if isinstance(error, RollflowError | ValueError):
        return Refusal(422, f"reward '{reward.name}' refused the request: {error}")
    _LOG.error("reward '%s' failed", reward.name, exc_info=error)
    return Refusal(500, f"reward '{reward.name}' failed: {type(error).__name__}: {error}")
