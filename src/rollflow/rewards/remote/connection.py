"""Requests to a server that may be slow, busy, restarted or gone."""

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
"""Most bytes of an answer: the scores of hundreds of thousands of samples."""


class Call(NamedTuple):
    """A request.

    Args:
        method: Of HTTP.
        path: Below the server's URL.
        content: Its body.
        headers: Beside those of every request.
    """

    method: str
    path: str
    content: bytes | None = None
    headers: dict[str, str] | None = None


def answered(client: httpx.Client, request: httpx.Request, seconds: float, most: int = MAX_ANSWER) -> httpx.Response:
    """The answer to a request, no more of which is read than is allowed.

    Redirects are not followed, so that what is sent, a token or a key above all, stays with its server.

    Args:
        client: Of ``deadlines.client``. What comes compressed, though it asks for none, is not unpacked.
        request: As the client builds it.
        seconds: Until all of it is there.
        most: Bytes of its body.

    Raises:
        BadReward: If it is longer.
        httpx.RequestError: If there is none, or not in time.
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
                    raise BadReward(f"expected an answer of at most {most} bytes from '{request.url}', got more")
        finally:
            answer.close()
    headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() != "content-encoding"]
    return httpx.Response(answer.status_code, headers=headers, content=bytes(body), request=request)


class _Sockets:
    """A client for threads to share, closed once nobody holds it."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        from rollflow.rewards.remote.deadlines import client

        # What the environment says of proxies is not for a server of one's own, to which a token is sent.
        self.client = client(base_url=url, headers=headers, trust_env=False)
        finalize(self, self.client.close)


_SHARED: WeakValueDictionary[tuple[object, ...], _Sockets] = WeakValueDictionary()
_SHARING = Lock()


@dataclass(eq=False)
class Connection:
    """A server, asked again until it answers.

    A request fails if the server cannot be reached, does not answer in time, or says that it is busy (408, 429, 502,
    503, 504); any other answer is one. It is made again after pauses that double from 0.1 s to 5 s, shortened at random
    by up to a half, so that many clients do not come back at once.

    Circuit breaker: after three failures in a row, whoever made the requests, ``/health`` has to answer before the next
    is sent. Once someone's patience is over, the next one has none: one probe, and it fails, or all is well again.

    Args:
        url: Of the server.
        headers: Of every request.
        timeout: Seconds until an answer.
    """

    url: str
    headers: dict[str, str]
    timeout: float
    _failures: int = field(default=0, init=False)
    _given_up: bool = field(default=False, init=False)
    _jitter: random.Random = field(default_factory=random.Random, init=False)

    @cached_property
    def _sockets(self) -> _Sockets:
        """Those of all connections to the same server with the same headers."""
        key = (os.getpid(), self.url, *sorted(self.headers.items()))
        with _SHARING:
            sockets = _SHARED.get(key)
            if sockets is None:
                sockets = _SHARED[key] = _Sockets(self.url, self.headers)
            return sockets

    def ask(self, call: Call, patience: float) -> httpx.Response:
        """The answer to a request.

        Args:
            call: What can be asked again without harm.
            patience: Seconds from the first failure until it is given up.

        Raises:
            RewardUnavailable: Then.
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
                raise RewardUnavailable(f"the reward server at {self.url} {answer}; given up at try {tries}")
            if tries == 1:
                _LOG.warning("the reward server at %s %s; waiting for it up to %.4g s", self.url, answer, patience)
            time.sleep(pause)

    def _tried(self, call: Call, timeout: float) -> httpx.Response | str:
        """An answer, or why there is none."""
        if self._given_up or self._failures >= _OPENS_AT:
            probed = self._once(Call("GET", "/health"), min(timeout, _PROBE))
            if isinstance(probed, str):
                return probed
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
