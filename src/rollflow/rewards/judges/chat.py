"""Chat completions of an OpenAI-compatible API: asked until there is an answer that can be read."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rollflow import checks
from rollflow.errors import BadReward, BadSetting, RewardUnavailable, RollflowError
from rollflow.rewards.remote.connection import answered

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
KEY = "ROLLFLOW_API_KEY"
"""The environment variable of the API key, unless another is named."""
FIRST_WAIT = 1.0
"""Seconds before the second try where the server names none; doubled before each further one."""

LONGEST_WAIT = 120.0
"""A server that asks for more patience than this is given up."""

MAX_COMPLETION = 2**22
"""Most bytes of a response."""

_WHOLE = 10

TRY_AGAIN = frozenset({408, 409, 425, 429})
"""Status codes, beside those from 500, after which the same request may succeed."""

OF_THE_ACCOUNT = frozenset({401, 402, 403, 404})
"""Status codes of a key, a quota or an address that is wrong, whatever is asked."""

_FILTERED = re.compile(
    r"content.?(filter|policy|management)|moderation|flagged|safety.?(system|filter|policy|check|reason)"
    r"|(prohibited|inappropriate).?content",
    re.IGNORECASE,
)
"""What filters say of what they do not let through, with status 400 or 403."""


class Refused(BadReward):
    """What is asked about is refused by a model or its filter; asked again, it would be refused again."""


@dataclass(frozen=True)
class Chat:
    """Where completions come from, and how patiently they are waited for.

    A request that is not answered, or answered by one of ``TRY_AGAIN``, by 500 or more, or by what cannot be read, is
    made again, after as long as the server's ``Retry-After`` says. A refusal is final.

    Args:
        url: Base of the API, to which ``/chat/completions`` is appended.
        key: Name of the environment variable that holds the key; it begins with ``ROLLFLOW_``, so that no other secret
            can be sent to a server. Without a value no key is sent.
        timeout: Of connecting and of each wait for a part of the response, in seconds; ten times that for all of it.
        retries: Tries after the first.

    Raises:
        BadSetting: If the URL is not of HTTP, or the variable is not one of rollflow's.
    """

    url: str
    key: str
    timeout: float
    retries: int

    def __post_init__(self) -> None:
        checks.text("url", self.url)
        if not re.match(r"https?://[^\s/:]+(:\d+)?(/\S*)?$", self.url):
            raise BadSetting(f"expected a URL such as http://localhost:8000/v1, not '{self.url}'")
        if not re.fullmatch(r"ROLLFLOW_\w+", self.key, re.ASCII):
            raise BadSetting(
                f"key={self.key}: keys are read only from variables whose names begin with ROLLFLOW_, so that no other "
                f"secret is sent anywhere; leave key= out and put the key into {KEY}: export {KEY}=..."
            )

    def client(self) -> httpx.Client:
        """A client for threads to share, to be closed."""
        try:
            from rollflow.rewards.remote import deadlines
        except ImportError as error:
            raise RollflowError("a VLM judge needs httpx; install with pip install 'rollflow[rewards]'") from error
        key = os.environ.get(self.key, "").strip()
        return deadlines.client(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=self.timeout)

    def complete(
        self, client: httpx.Client, body: dict[str, Any], read: Callable[[str], T], stop: threading.Event
    ) -> T:
        """What ``read`` makes of the text of a completion.

        Args:
            client: As ``client`` makes.
            body: Of the request.
            read: Raises ValueError on what it cannot read.
            stop: Set by whoever has no more use for the answer.

        Raises:
            Refused: If the model, or a filter before it, refuses what it is asked about.
            BadReward: If the server refuses the request.
            RewardUnavailable: If there is no answer, which says what came instead.
        """
        import httpx

        problem, wait = "", 0.0
        for attempt in range(self.retries + 1):
            if stop.wait(wait):
                break
            wait = FIRST_WAIT * 2**attempt
            try:
                request = client.build_request("POST", f"{self.url.rstrip('/')}/chat/completions", json=body)
                response = answered(client, request, _WHOLE * self.timeout, MAX_COMPLETION)
            except httpx.RequestError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if response.status_code in TRY_AGAIN or response.status_code >= 500:
                problem, wait = _told(response), _retry_after(response, wait)
                if wait > LONGEST_WAIT:
                    raise RewardUnavailable(f"'{self.url}' asks to wait {wait:.0f} s: {problem}")
            elif response.is_success:
                try:
                    return read(self._content(response))
                except ValueError as error:
                    problem = str(error)
            else:
                raise self._refusal(response)
        raise RewardUnavailable(f"'{self.url}' gave no answer in {self.retries + 1} tries; the last: {problem}")

    def _refusal(self, response: httpx.Response) -> RollflowError:
        """The error of a status that is neither success nor worth another try."""
        if response.status_code in (400, 403) and _FILTERED.search(response.text):
            return Refused(f"'{self.url}' refused to judge: {_told(response)}")
        for_now = response.status_code in OF_THE_ACCOUNT or not response.is_client_error
        kind = RewardUnavailable if for_now else BadReward
        return kind(f"'{self.url}' refused: {_told(response)}{self._advice(response)}")

    def _advice(self, response: httpx.Response) -> str:
        if response.status_code in (401, 403):
            return f"; put a key that is valid there into {self.key}"
        if any(word in response.text for word in ("response_format", "json_schema", "guided")):
            return "; if it knows no JSON schemas, strict=false asks for JSON in words"
        return ""

    def _content(self, response: httpx.Response) -> str:
        """The text of the first choice."""
        try:
            choice = response.json()["choices"][0]
            content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
            if refusal or choice.get("finish_reason") == "content_filter":
                raise Refused(f"'{self.url}' refused to judge: {_excerpt(str(refusal or 'content_filter'))}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise ValueError(f"no text of an answer in: {_excerpt(response.text)}")
        return content


def _told(response: httpx.Response) -> str:
    return f"{response.status_code} {_excerpt(response.text)}"


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:300]


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    """Seconds to wait: the header has them, or a date."""
    told = response.headers.get("Retry-After", "")
    try:
        seconds = float(told) if told[:1].isdecimal() else parsedate_to_datetime(told).timestamp() - time.time()
    except ValueError:
        return otherwise
    return max(0.0, seconds)
