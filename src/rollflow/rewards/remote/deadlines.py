"""HTTP clients with a time limit for a whole request, not only for each read and write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

_SLICE = 2**16
_OF_THREAD = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the time of all reads and writes of this thread within the block; afterwards they fail with a timeout."""
    before, _OF_THREAD.end = getattr(_OF_THREAD, "end", None), time.monotonic() + seconds
    try:
        yield
    finally:
        _OF_THREAD.end = before


def client(**settings: Any) -> httpx.Client:
    """Create a client that observes ``within``; it neither follows redirects nor requests compressed answers.

    Args:
        settings: Arguments of ``httpx.Client`` other than its transport.
    """
    http = httpx.Client(
        follow_redirects=False, headers={"Accept-Encoding": "identity"} | settings.pop("headers", {}), **settings
    )
    for transport in {http._transport, *http._mounts.values()}:  # httpx has no public way to set the backend
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _DeadlineBackend(pool._network_backend)
    return http


def _left(timeout: float | None) -> float | None:
    """The part of a timeout that remains within the block, possibly zero or less."""
    end = getattr(_OF_THREAD, "end", None)
    if end is None:
        return timeout
    left: float = end - time.monotonic()
    return left if timeout is None else min(timeout, left)


class _DeadlineBackend(httpcore.NetworkBackend):
    """Creates streams that observe the deadline of their thread."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self.inner = inner

    def connect_tcp(self, *args: Any, **settings: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(self.inner.connect_tcp(*args, **settings))

    def connect_unix_socket(self, *args: Any, **settings: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(self.inner.connect_unix_socket(*args, **settings))

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)


class _DeadlineStream(httpcore.NetworkStream):
    """A stream whose reads and writes end at the deadline."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self.inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _left(timeout)
        if left is not None and left <= 0:
            raise httpcore.ReadTimeout("the answer was not complete in time")
        return self.inner.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _SLICE):
            left = _left(timeout)
            if left is not None and left <= 0:
                raise httpcore.WriteTimeout("the request was not received in time")
            self.inner.write(buffer[start : start + _SLICE], left)

    def close(self) -> None:
        self.inner.close()

    def start_tls(self, *args: Any, **settings: Any) -> httpcore.NetworkStream:
        return _DeadlineStream(self.inner.start_tls(*args, **settings))

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)
