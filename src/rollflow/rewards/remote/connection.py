"""Requests to a server that may be slow, busy, restarting or down."""

from __future__ import annotations

import logging
import os
import random
import time
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary, finalize

from rollflow.errors import BadReward, RewardUnavailable

if TYPE_CHECKING:
    import httpx

_LOG = logging.getLogger(__name__)
_TRANSIENT = frozenset({408, 429, 502, 503, 504})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_CONNECT, _PROBE = 10.0, 5.0
_OPENS_AT = 3
MAX_ANSWER = 2**24
"""Largest size of an answer in bytes, enough for the scores of hundreds of thousands of samples."""


class Call(NamedTuple):
    """A request.

    Args:
        method: HTTP method.
        path: Path below the server's URL.
        content: Body of the request.
        headers: Headers in addition to those of every request.
    """

    method: str
    path: str
    content: bytes | None = None
    headers: dict[str, str] | None = None


def answered(client: httpx.Client, request: httpx.Request, seconds: float, most: int = MAX_ANSWER) -> httpx.Response:
    """Send a request and read the answer, up to a limit of time and size.

    Redirects are not followed, so that tokens and keys are sent to their own server only.

    Args:
        client: Client made by ``deadlines.client``. It requests no compression, and a compressed answer is not
            decompressed.
        request: Request built by the client.
        seconds: Time limit for the whole answer.
        most: Largest size of the body in bytes.

    Raises:
        BadReward: If the body is larger.
        httpx.RequestError: If there is no answer in time.
    """
    import httpx

    from rollflow.rewards.remote.deadlines import within

    body = bytearray()
    with within(seconds):
        answer = client.send(request, stream=True)
        try:
            for part in answer.iter_raw():
                body += part
                if len(body) > most:
                    raise BadReward(
                        f"expected an answer of at most {most} bytes from '{request.url}', got a larger one"
                    )
        finally:
            answer.close()
    headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() != "content-encoding"]
    return httpx.Response(answer.status_code, headers=headers, content=bytes(body), request=request)


class _Sockets:
    """A client that threads share, closed when the last reference to it is gone."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        from rollflow.rewards.remote.deadlines import client

        # The environment's proxies are not meant for one's own server, to which a token is sent.
        self.client = client(base_url=url, headers=headers, trust_env=False)
        finalize(self, self.client.close)


_SHARED: WeakValueDictionary[tuple[object, ...], _Sockets] = WeakValueDictionary()
_SHARING = Lock()


@dataclass(eq=False)
class Connection:
    """A server whose requests are repeated until it answers.

    A request fails if the server cannot be reached, does not answer in time, or reports that it is busy (408, 429, 502,
    503, 504); any other answer is final. Failed requests are repeated after pauses that double from 0.1 s to 5 s, each
    shortened at random by up to a half, so that many clients do not return at the same time.

    It has a circuit breaker: after three failures in a row, by any thread, ``/health`` must answer before the next
    request is sent. After a request was given up, the next one has no patience: a single probe decides whether it fails
    or normal operation resumes.

    Args:
        url: URL of the server.
        headers: Headers of every request.
        timeout: Timeout of a request in seconds.
    """

    url: str
    headers: dict[str, str]
    timeout: float
    _failures: int = field(default=0, init=False)
    _given_up: bool = field(default=False, init=False)
    _jitter: random.Random = field(default_factory=random.Random, init=False)

    @cached_property
    def _sockets(self) -> _Sockets:
        """The client shared by all connections to the same server with the same headers."""
        key = (os.getpid(), self.url, *sorted(self.headers.items()))
        with _SHARING:
            sockets = _SHARED.get(key)
            if sockets is None:
                sockets = _SHARED[key] = _Sockets(self.url, self.headers)
            return sockets

    def ask(self, call: Call, patience: float) -> httpx.Response:
        """Send a request, repeatedly if necessary, and return the answer.

        Args:
            call: An idempotent request.
            patience: Seconds from the first failure until the request is given up.

        Raises:
            RewardUnavailable: If the request is given up.
        """
        end, tries = None, 0
        if self._given_up:
            patience = 0
        while True:
            left = self.timeout if end is None else min(self.timeout, max(end - time.monotonic(), _PROBE))
            answer = self._tried(call, left)
            if not isinstance(answer, str):
                self._given_up = False
                return answer
            end = end or time.monotonic() + patience
            pause = min(_FIRST_PAUSE * 2**tries, _LONGEST_PAUSE) * self._jitter.uniform(0.5, 1)
            tries += 1
            if time.monotonic() + pause >= end:
                self._given_up = True
                raise RewardUnavailable(f"the reward server at {self.url} {answer}; gave up after try {tries}")
            if tries == 1:
                _LOG.warning("the reward server at %s %s; waiting up to %.4g s for it", self.url, answer, patience)
            time.sleep(pause)

    def _tried(self, call: Call, timeout: float) -> httpx.Response | str:
        """Send a request once, after a probe if necessary; returns the answer, or the reason why there is none."""
        if self._given_up or self._failures >= _OPENS_AT:
            health = self._once(Call("GET", "/health"), min(timeout, _PROBE))
            if isinstance(health, str):
                return health
        answer = self._once(call, timeout)
        self._failures = self._failures + 1 if isinstance(answer, str) else 0
        return answer

    def _once(self, call: Call, timeout: float) -> httpx.Response | str:
        import httpx

        client = self._sockets.client
        limits = httpx.Timeout(timeout, connect=min(timeout, _CONNECT))
        request = client.build_request(
            call.method, call.path, content=call.content, headers=call.headers, timeout=limits
        )
        try:
            answer = answered(client, request, timeout)
        except httpx.TimeoutException:
            return f"did not answer within {timeout:.3g} s"
        except httpx.RequestError as error:
            return f"cannot be reached ({' '.join(str(error).split()) or type(error).__name__})"
        return f"answered {answer.status_code}" if answer.status_code in _TRANSIENT else answer
