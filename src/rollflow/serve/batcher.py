"""Rows of many requests through one reward, in as few calls as it allows."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread

import torch

from rollflow.engine.answers import scored
from rollflow.rewards.base import RewardModel
from rollflow.serve.wire import Batch

_REMEMBERED = 1024


@dataclass(eq=False)
class _Waiting:
    """A request and its scores to come."""

    batch: Batch
    scores: Future[list[float]] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[torch.Size, torch.dtype]:
        """Of requests that can share a call."""
        return self.batch.samples.shape[1:], self.batch.samples.dtype


class Batcher:
    """Scores requests in a thread of its own.

    What came in while a call ran is there for the next: the request that has waited longest, and with it all of its
    shape and type that fit into the reward's ``batch_size``, whole. There is no waiting for more. If a call raises,
    those who shared it are scored alone, so that only who is at fault fails.

    Args:
        reward: Only that thread calls it.
    """

    def __init__(self, reward: RewardModel) -> None:
        self.reward = reward
        self._arrived: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._remembered: OrderedDict[str, Future[list[float]]] = OrderedDict()
        self._thread = Thread(target=self._work, name="rollflow-reward", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether what is submitted will be scored."""
        return self._thread.is_alive()

    def submit(self, batch: Batch, key: str | None = None) -> Future[list[float]]:
        """The scores to come; those of the last requests with a key are remembered, unless they failed."""
        known = None if key is None else self._remembered.get(key)
        if known is not None and not (known.done() and known.exception()):
            return known
        waiting = _Waiting(batch)
        if key is not None:
            self._remembered[key] = waiting.scores
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        self._arrived.put(waiting)
        return waiting.scores

    def close(self) -> None:
        """Let the thread end once it has scored what it was given."""
        self._arrived.put(None)

    def _work(self) -> None:
        waiting: list[_Waiting] = []
        closed = False
        while waiting or not closed:
            while not (waiting and self._arrived.empty()) and not closed:
                arrived = self._arrived.get()
                closed = arrived is None
                waiting += [] if arrived is None else [arrived]
            if waiting:
                together = self._together(waiting)
                waiting = [request for request in waiting if request not in together]
                self._answer(together)

    def _together(self, waiting: list[_Waiting]) -> list[_Waiting]:
        together, rows = waiting[:1], len(waiting[0].batch.prompts)
        for request in waiting[1:]:
            more = rows + len(request.batch.prompts)
            if request.kind == together[0].kind and more <= self.reward.batch_size:
                together.append(request)
                rows = more
        return together

    def _answer(self, requests: list[_Waiting]) -> None:
        samples = torch.cat([request.batch.samples for request in requests])
        prompts = [prompt for request in requests for prompt in request.batch.prompts]
        try:
            scores = scored(self.reward, samples, prompts)
        except Exception as error:
            if len(requests) == 1:
                requests[0].scores.set_exception(error)
            else:
                for request in requests:
                    self._answer([request])
            return
        parts = torch.split(scores, [len(request.batch.prompts) for request in requests])
        for request, part in zip(requests, parts, strict=True):
            request.scores.set_result(part.tolist())
